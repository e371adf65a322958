//! The one shape of errors: `application/problem+json` (RFC 9457).
//!
//! Keeps true: the client gets our sentence and what to do; the cause goes to the log.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tracing::error;
use utoipa::ToSchema;

/// Shorthand for handlers.
pub(crate) type Result<T, E = ApiError> = std::result::Result<T, E>;

/// What a problem is about; one `type`, title and status each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Malformed,
    UnknownParameter,
    UnknownField,
    Invalid,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Ambiguous,
    Conflict,
    IdempotencyMismatch,
    IdempotencyBusy,
    TooLarge,
    SecondFactor,
    TooMany,
    Unavailable,
    Internal,
}

impl Kind {
    fn parts(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::Malformed => ("malformed", StatusCode::BAD_REQUEST, "The request cannot be read"),
            Self::UnknownParameter => ("unknown_parameter", StatusCode::BAD_REQUEST, "Unknown query parameter"),
            Self::UnknownField => ("unknown_field", StatusCode::UNPROCESSABLE_ENTITY, "Unknown field"),
            Self::Invalid => ("invalid", StatusCode::UNPROCESSABLE_ENTITY, "The request asks for something impossible"),
            Self::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED, "It is not known who asks"),
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN, "This is not allowed"),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND, "There is no such thing"),
            Self::MethodNotAllowed => ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED, "Not with this method"),
            Self::Ambiguous => ("ambiguous", StatusCode::CONFLICT, "The address means several mailboxes"),
            Self::Conflict => ("conflict", StatusCode::CONFLICT, "This is not possible as things are"),
            Self::IdempotencyMismatch => {
                ("idempotency_mismatch", StatusCode::UNPROCESSABLE_ENTITY, "The key belongs to another request")
            }
            Self::IdempotencyBusy => {
                ("idempotency_busy", StatusCode::CONFLICT, "The same request is being carried out")
            }
            Self::TooLarge => ("too_large", StatusCode::PAYLOAD_TOO_LARGE, "The request is too large"),
            Self::SecondFactor => ("second_factor_required", StatusCode::UNAUTHORIZED, "The second factor is needed"),
            Self::TooMany => ("too_many", StatusCode::TOO_MANY_REQUESTS, "Too many tries"),
            Self::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE, "The database does not answer"),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong here"),
        }
    }
}

/// A problem as it is sent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// `urn:understudy:problem:` and a word for programs.
    #[serde(rename = "type")]
    #[schema(example = "urn:understudy:problem:not_found")]
    pub(crate) problem_type: String,
    pub(crate) title: String,
    pub(crate) status: u16,
    /// Why.
    pub(crate) detail: String,
    /// What to do about it.
    pub(crate) remedy: String,
    /// Each thing that is wrong, where there is a list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) errors: Vec<ProblemItem>,
}

/// One of several things that are wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ProblemItem {
    /// Where in the request's body (RFC 6901).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pointer: Option<String>,
    /// Which item of the list, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<usize>,
    /// Which line of the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<u64>,
    pub(crate) detail: String,
    /// The nearest valid name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nearest: Option<String>,
}

impl ProblemItem {
    pub(crate) fn at(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), detail: detail.into(), ..Self::default() }
    }
}

/// An error on its way to the client.
#[derive(Debug)]
pub(crate) struct ApiError {
    kind: Kind,
    detail: String,
    remedy: String,
    errors: Vec<ProblemItem>,
    cause: Option<anyhow::Error>,
    retry_after: Option<u64>,
}

impl ApiError {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), remedy: remedy.into(), errors: Vec::new(), cause: None, retry_after: None }
    }

    /// In how many seconds it is worth another try.
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(crate) fn with_errors(mut self, errors: Vec<ProblemItem>) -> Self {
        self.errors = errors;
        self
    }

    /// There is no `what` called `name`; `nearest` is one that is spelled alike.
    pub(crate) fn not_found(what: &str, name: &str, nearest: Option<String>, remedy: &str) -> Self {
        let detail = format!("there is no {what} `{name}`");
        let (remedy, errors) = match nearest {
            Some(nearest) => {
                let item = ProblemItem { detail: detail.clone(), nearest: Some(nearest.clone()), ..Default::default() };
                (format!("did you mean `{nearest}`? {remedy}"), vec![item])
            }
            None => (remedy.to_owned(), Vec::new()),
        };
        Self::new(Kind::NotFound, detail, remedy).with_errors(errors)
    }

    /// Several things in a body are wrong; nothing was changed.
    pub(crate) fn invalid(errors: Vec<ProblemItem>) -> Self {
        let detail = match errors.as_slice() {
            [only] => only.detail.clone(),
            many => format!("{} things are wrong with it; nothing was changed", many.len()),
        };
        Self::new(Kind::Invalid, detail, "correct what `errors` names and send it again").with_errors(errors)
    }

    /// The same answer to whoever has no good token, whatever is wrong with it.
    pub(crate) fn unauthorized() -> Self {
        Self::new(
            Kind::Unauthorized,
            "the request carries no valid token and no good session",
            "log in, or send `Authorization: Bearer TOKEN`; `understudy token create` on the server makes one",
        )
    }
}

impl From<understudy_database::Error> for ApiError {
    fn from(cause: understudy_database::Error) -> Self {
        let (kind, detail, remedy) = if is_outage(&cause) {
            (
                Kind::Unavailable,
                "the database does not answer",
                "try again in a moment; `understudy preflight` says more",
            )
        } else {
            (
                Kind::Internal,
                "the request could not be carried out",
                "try again; if it stays, the log says what happened",
            )
        };
        Self { cause: Some(cause.into()), ..Self::new(kind, detail, remedy) }
    }
}

fn is_outage(cause: &understudy_database::Error) -> bool {
    use sqlx::Error::{Io, PoolClosed, PoolTimedOut};
    matches!(cause, understudy_database::Error::Sql(Io(_) | PoolTimedOut | PoolClosed))
}

impl From<anyhow::Error> for ApiError {
    fn from(cause: anyhow::Error) -> Self {
        let remedy = "try again; if it stays, the log says what happened";
        Self { cause: Some(cause), ..Self::new(Kind::Internal, "the request could not be carried out", remedy) }
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(cause: sqlx::Error) -> Self {
        understudy_database::Error::from(cause).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (word, status, title) = self.kind.parts();
        if let Some(cause) = &self.cause {
            error!(error = format!("{cause:#}"), problem = word, "A request could not be carried out");
        }
        let problem = Problem {
            problem_type: format!("urn:understudy:problem:{word}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail,
            remedy: self.remedy,
            errors: self.errors,
        };
        let mut response = (status, axum::Json(problem)).into_response();
        let json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
