//! Templates: words with variables, filled in. A variable that is not there is an error, never an empty place.
//!
//! Keeps true: no template runs long, reads anything but its variables, or makes a second header line of a subject.

use minijinja::{AutoEscape, Environment, UndefinedBehavior, syntax::SyntaxConfig, value::Serde};
use serde_json::Value;

use crate::topic::Topic;

/// Steps a template may take: a list of 1,000 mailboxes fits many times.
const FUEL: u64 = 500_000;
/// The longest result.
const LONGEST: usize = 1 << 20;
/// The longest subject.
const LONGEST_SUBJECT: usize = 200;
/// The longest template.
const LONGEST_TEMPLATE: usize = 64 << 10;

/// The words of one mail, with variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub subject: String,
    pub text: String,
    pub html: String,
}

/// The words of one mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    pub subject: String,
    pub text: String,
    pub html: String,
}

/// Why a template cannot be used: which part, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    pub part: &'static str,
    pub detail: String,
}

impl Template {
    /// The words built in.
    #[must_use]
    pub fn built_in(topic: Topic, language: &str) -> Self {
        let (subject, text, html) = topic.words(language);
        Self { subject, text, html }
    }
}

/// Fills in a template.
pub fn render(template: &Template, values: &Value) -> Result<Rendered, TemplateError> {
    let subject = part("subject", &template.subject, values, false)?;
    Ok(Rendered {
        subject: one_line(&subject),
        text: part("text", &template.text, values, false)?,
        html: part("html", &template.html, values, true)?,
    })
}

/// Everything that is wrong with a template, tried with the topic's sample.
#[must_use]
pub fn check(topic: Topic, template: &Template) -> Vec<TemplateError> {
    let sample = topic.sample();
    let parts =
        [("subject", &template.subject, false), ("text", &template.text, false), ("html", &template.html, true)];
    parts.into_iter().filter_map(|(name, text, is_html)| part(name, text, &sample, is_html).err()).collect()
}

fn part(part: &'static str, template: &str, values: &Value, is_html: bool) -> Result<String, TemplateError> {
    let wrong = |detail: String| TemplateError { part, detail };
    if template.len() > LONGEST_TEMPLATE {
        return Err(wrong(format!("a template has at most {} KiB", LONGEST_TEMPLATE >> 10)));
    }
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(|error| wrong(error.to_string()))?);
    environment.set_auto_escape_callback(move |_| if is_html { AutoEscape::Html } else { AutoEscape::None });
    let rendered = environment.render_named_str(part, template, Serde(values)).map_err(|error| {
        let line = error.line().map_or_else(String::new, |line| format!("line {line}: "));
        wrong(format!("{line}{error}"))
    })?;
    if rendered.len() > LONGEST { Err(wrong("it becomes too long".to_owned())) } else { Ok(rendered) }
}

/// A subject is one line, whatever its variables hold.
fn one_line(subject: &str) -> String {
    let words: Vec<&str> =
        subject.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(LONGEST_SUBJECT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::LANGUAGES;

    #[test]
    fn what_is_built_in_can_be_filled_in() {
        for topic in Topic::ALL {
            for language in LANGUAGES {
                let template = Template::built_in(topic, language);
                assert_eq!(check(topic, &template), [], "{} {language}", topic.name);
                let rendered = render(&template, &topic.sample()).expect("checked");
                assert!(!rendered.subject.is_empty() && !rendered.text.contains("{{"), "{rendered:?}");
                assert!(rendered.html.contains("<p>"), "{rendered:?}");
            }
        }
    }

    #[test]
    fn a_variable_that_is_not_there_is_an_error() {
        let topic = Topic::named("switch_done").expect("known");
        let template = Template { subject: "{{ adress }}".to_owned(), ..Template::built_in(topic, "en") };
        let errors = check(topic, &template);
        assert_eq!(errors.len(), 1);
        assert!(errors[0].part == "subject" && errors[0].detail.contains("line 1"), "{errors:?}");
    }

    #[test]
    fn variables_make_no_header_and_no_markup() {
        let topic = Topic::named("switch_done").expect("known");
        let template = Template {
            subject: "{{ address }}".to_owned(),
            text: "{{ address }}".to_owned(),
            html: "{{ address }}".to_owned(),
        };
        let mut values = topic.sample();
        values["address"] = "a\r\nBcc: all@example.org\u{2028}<script>".into();
        let rendered = render(&template, &values).expect("values are only values");
        assert_eq!(rendered.subject, "a Bcc: all@example.org <script>");
        assert!(rendered.html.contains("&lt;script&gt;") && !rendered.html.contains("<script>"));
        // What a variable holds is never read as a template.
        values["address"] = "{{ 7 * 7 }}".into();
        assert_eq!(render(&template, &values).expect("values are only values").subject, "{{ 7 * 7 }}");
    }

    #[test]
    fn no_template_runs_for_ever() {
        let topic = Topic::named("fault").expect("known");
        let text = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}".to_owned();
        let template = Template { text, ..Template::built_in(topic, "en") };
        assert_eq!(check(topic, &template).len(), 1);
    }
}
