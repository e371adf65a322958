//! A response as a tree of values.

use anyhow::{Result, bail};

/// Part of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// An atom, a quoted string or a literal; which of them does not matter to us, but for `NIL`.
    Text(Vec<u8>),
    Nil,
    List(Vec<Value>),
}

impl Value {
    /// Whether it is this word, whatever the case.
    pub fn is(&self, word: &str) -> bool {
        matches!(self, Self::Text(text) if text.eq_ignore_ascii_case(word.as_bytes()))
    }

    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => String::from_utf8_lossy(text).into_owned(),
            Self::Nil => "NIL".to_owned(),
            Self::List(values) => format!("({})", values.iter().map(Self::text).collect::<Vec<_>>().join(" ")),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text,
            _ => &[],
        }
    }

    pub fn list(&self) -> &[Value] {
        match self {
            Self::List(values) => values,
            _ => &[],
        }
    }
}

/// `… {123}` → 123.
pub(super) fn announced_literal(line: &[u8]) -> Option<usize> {
    let line = line.strip_suffix(b"}")?;
    let open = line.iter().rposition(|byte| *byte == b'{')?;
    let digits = line.get(open + 1..)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// From lines, each with the literal that follows it.
pub(super) fn parse(parts: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Vec<Value>> {
    let is_text = parts.first().is_some_and(|(line, _)| is_status_text(line));
    if is_text {
        // Free text may hold anything; words are all we want of it.
        let words = parts[0].0.split(|byte| *byte == b' ').map(|word| Value::Text(word.to_vec()));
        return Ok(words.collect());
    }
    let mut stack = vec![Vec::new()];
    let last = parts.len().saturating_sub(1);
    for (index, (line, literal)) in parts.into_iter().enumerate() {
        let end =
            if index == last { line.len() } else { line.iter().rposition(|byte| *byte == b'{').unwrap_or(line.len()) };
        parse_line(&line[..end], &mut stack)?;
        if index != last {
            push(&mut stack, Value::Text(literal));
        }
    }
    match (stack.pop(), stack.is_empty()) {
        (Some(values), true) => Ok(values),
        _ => bail!("brackets of a response do not match"),
    }
}

/// `t1 OK …`, `* NO …`, `+ …`: a verdict with free text.
fn is_status_text(line: &[u8]) -> bool {
    let mut words = line.split(|byte| *byte == b' ');
    let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    first == b"+"
        || [&b"OK"[..], b"NO", b"BAD", b"BYE", b"PREAUTH"].iter().any(|word| second.eq_ignore_ascii_case(word))
}

fn parse_line(line: &[u8], stack: &mut Vec<Vec<Value>>) -> Result<()> {
    let mut at = 0;
    while let Some(byte) = line.get(at).copied() {
        at += 1;
        match byte {
            b' ' => {}
            b'(' => stack.push(Vec::new()),
            b')' => {
                let Some(values) = stack.pop().filter(|_| !stack.is_empty()) else {
                    bail!("brackets of a response do not match")
                };
                push(stack, Value::List(values));
            }
            b'"' => {
                let (text, after) = unquote(line, at)?;
                push(stack, Value::Text(text));
                at = after;
            }
            _ => {
                // `BODY[HEADER (A B)]` would need more; we never ask for it.
                let end =
                    line[at..].iter().position(|byte| b" ()\"".contains(byte)).map_or(line.len(), |length| at + length);
                let atom = &line[at - 1..end];
                push(stack, if atom.eq_ignore_ascii_case(b"NIL") { Value::Nil } else { Value::Text(atom.to_vec()) });
                at = end;
            }
        }
    }
    Ok(())
}

fn unquote(line: &[u8], mut at: usize) -> Result<(Vec<u8>, usize)> {
    let mut text = Vec::new();
    loop {
        match line.get(at) {
            Some(b'"') => return Ok((text, at + 1)),
            Some(b'\\') => {
                text.extend(line.get(at + 1));
                at += 2;
            }
            Some(byte) => {
                text.push(*byte);
                at += 1;
            }
            None => bail!("a quoted string does not end"),
        }
    }
}

fn push(stack: &mut [Vec<Value>], value: Value) {
    if let Some(values) = stack.last_mut() {
        values.push(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Vec<Value> {
        parse(vec![(line.as_bytes().to_vec(), Vec::new())]).unwrap()
    }

    #[test]
    fn lists_strings_and_literals_become_a_tree() {
        let parts = vec![
            (br"* 1 FETCH (UID 4 FLAGS (\Seen $Kw) BODY[] {5}".to_vec(), b"a)\r\n\"".to_vec()),
            (br#" X "q\"uo" N NIL)"#.to_vec(), Vec::new()),
        ];
        let values = parse(parts).unwrap();
        assert_eq!(values[3].text(), "(UID 4 FLAGS (\\Seen $Kw) BODY[] a)\r\n\" X q\"uo N NIL)");
        assert_eq!(values[3].list().last(), Some(&Value::Nil));
    }

    #[test]
    fn free_text_is_not_parsed() {
        assert!(one("t1 NO (( \" [X").first().unwrap().is("T1"));
        assert!(one("* OK [HIGHESTMODSEQ 4] Highest")[1].is("ok"));
    }

    #[test]
    fn literals_are_announced_at_the_end_only() {
        assert_eq!(announced_literal(b"* 1 FETCH (BODY[] {12}"), Some(12));
        assert_eq!(announced_literal(b"* LIST () \"/\" {x}"), None);
        assert_eq!(announced_literal(b"{12} more"), None);
    }
}
