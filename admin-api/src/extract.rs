//! Reads bodies, query parameters and path segments, and explains what is wrong with them.

use axum::{
    body::{Body as HttpBody, Bytes},
    extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request},
    http::{header, request::Parts},
};
use serde::de::DeserializeOwned;

use crate::{
    error::{ApiError, Kind, ProblemItem, Result},
    nearest::nearest,
};

/// The longest body taken.
pub(crate) const LONGEST_BODY: usize = 8 << 20;

/// Names under which people try to send secrets; those go into files beside the gateways.
const SECRETS: [&str; 7] = ["password", "passwd", "pass", "secret", "key", "api_key", "token"];

/// A whole body, or the problem that it is too large.
pub(crate) async fn whole(body: HttpBody) -> Result<Bytes> {
    axum::body::to_bytes(body, LONGEST_BODY).await.map_err(|_| {
        ApiError::new(
            Kind::TooLarge,
            format!("a body has at most {} MiB", LONGEST_BODY >> 20),
            "send a long list in several requests",
        )
    })
}

/// A JSON body. No body at all is the empty object.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_json = content_type.is_some_and(|kind| kind.starts_with("application/json"));
        let bytes = whole(request.into_body()).await?;
        if bytes.is_empty() {
            return parse(b"{}").map(Self);
        }
        if has_nul(&bytes) {
            let detail = "the body holds the character U+0000, which no name, address or reason has";
            return Err(ApiError::new(Kind::Invalid, detail, "take it out and send the rest"));
        }
        if !is_json {
            return Err(ApiError::new(
                Kind::Malformed,
                "the body is not marked as JSON",
                "send `Content-Type: application/json`",
            ));
        }
        parse(&bytes).map(Self)
    }
}

/// Whether JSON text spells U+0000, which PostgreSQL cannot keep.
fn has_nul(json: &[u8]) -> bool {
    let spelled = |at: usize| json[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0;
    json.windows(6).enumerate().any(|(at, six)| six == b"\\u0000" && spelled(at))
}

/// A value from JSON, or a problem that points at what is wrong.
fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let pointer = pointer(error.path());
        let syntax = !error.inner().is_data();
        explain(&error.into_inner().to_string(), Some(pointer), if syntax { Kind::Malformed } else { Kind::Invalid })
    })?;
    reader.end().map_err(|error| explain(&error.to_string(), None, Kind::Malformed))?;
    Ok(value)
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Map { key } => Some(format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

/// Turns serde's sentence into a problem: names the field, and the nearest known one.
fn explain(sentence: &str, pointer: Option<String>, kind: Kind) -> ApiError {
    let quoted: Vec<&str> = sentence.split('`').skip(1).step_by(2).collect();
    let detail = sentence.split(" at line ").next().unwrap_or(sentence).to_owned();
    let unknown_field = sentence.starts_with("unknown field");
    let nearest = match quoted.as_slice() {
        [wrong, known @ ..] if unknown_field || sentence.starts_with("unknown variant") => {
            nearest(wrong, known.iter().copied())
        }
        _ => None,
    };
    let secret = unknown_field && quoted.first().is_some_and(|field| SECRETS.contains(field));
    let remedy = if secret {
        "secrets are never sent: write it to a file beside the gateway that uses it and name that file (`password_file`, `key_file`)"
            .to_owned()
    } else if let Some(nearest) = &nearest {
        format!("did you mean `{nearest}`?")
    } else {
        "compare with the description at /api/docs".to_owned()
    };
    let item = ProblemItem { pointer, detail: detail.clone(), nearest, ..ProblemItem::default() };
    let kind = if unknown_field { Kind::UnknownField } else { kind };
    ApiError::new(kind, detail, remedy).with_errors(vec![item])
}

/// Query parameters. Unknown ones were refused before a handler is reached, see `router`.
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => {
                let text = rejection.body_text();
                let sentence = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
                // A parameter's own name comes first where it is known: `limit: invalid digit found in string`.
                let bare = sentence.find("unknown variant").map_or(sentence, |at| &sentence[at..]);
                Err(explain(bare, None, Kind::Malformed))
            }
        }
    }
}

/// The one variable segment of a path, percent-decoded.
pub(crate) struct Name(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let malformed = || {
            ApiError::new(Kind::Malformed, "the path is not UTF-8", "percent-encode the name as UTF-8 (RFC 3986 §2.5)")
        };
        let params = RawPathParams::from_request_parts(parts, state).await.map_err(|_| malformed())?;
        let name = params.iter().next().map(|(_, value)| value.to_owned());
        name.map(Self).ok_or_else(malformed)
    }
}

/// A filter given as the empty text is not given.
pub(crate) fn given(parameter: Option<&String>) -> Option<&str> {
    parameter.map(String::as_str).filter(|value| !value.is_empty())
}
