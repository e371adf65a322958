//! All routes, and what every request passes on its way: headers, token and role, known parameters, idempotency.

use std::{collections::HashSet, sync::Arc};

use axum::{
    Json, Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use tower_http::{set_header::SetResponseHeaderLayer, trace::TraceLayer};
use utoipa::{
    OpenApi,
    openapi::{
        ContentBuilder, Ref, RefOr, ResponseBuilder,
        path::{Operation, ParameterIn},
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api, auth, caller,
    error::{ApiError, Kind},
    health, idempotency, metrics,
    nearest::nearest,
    state::Api,
    web,
};

/// What the API says about itself.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Understudy",
        description = "Mail continuity, one mailbox at a time. Every request but `/healthz`, `/readyz` and a log-in needs \
                       `Authorization: Bearer TOKEN` or the cookie of a session. The provider's people act for a customer by the \
                       header `Understudy-Tenant: NAME`; `Understudy-Reason` says why, for the audit. Errors are `application/problem+json` (RFC 9457) with a `remedy`. \
                       Lists go on with `?after=` and the `next` of the page before. A POST with an `Idempotency-Key` \
                       is carried out once."
    ),
    components(schemas(crate::error::Problem, crate::api::events::LagSample)),
    security(("token" = []), ("session" = []))
)]
struct Description;

/// Which query parameters each route knows: method, path, names.
type KnownParameters = Vec<(Method, String, HashSet<String>)>;

/// The whole service.
pub fn router(api: Api) -> Router {
    let (guarded, mut description) = guarded();
    let (open, open_description) = open();
    description.merge(open_description);
    let description = Arc::new(finish(description));
    let parameters = Arc::new(known_parameters(&description));

    let guarded = guarded
        .route("/api/openapi.json", get(move || async move { Json(description.as_ref().clone()) }))
        .fallback(nowhere)
        .method_not_allowed_fallback(not_with_this_method)
        .layer(middleware::from_fn_with_state(api.clone(), idempotency::once))
        .layer(middleware::from_fn_with_state(parameters, refuse_unknown_parameters))
        .layer(middleware::from_fn_with_state(api.clone(), auth::guard));
    guarded
        .merge(open)
        .merge(web::pages())
        .merge(web::docs())
        .layer(header_unless_set(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(header_unless_set(header::REFERRER_POLICY, "no-referrer"))
        .layer(header_unless_set(header::CACHE_CONTROL, "no-store"))
        .layer(header_unless_set(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"))
        .layer(TraceLayer::new_for_http().make_span_with(span))
        .with_state(api)
}

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut description = guarded().1;
    description.merge(open().1);
    finish(description)
}

pub(crate) fn guarded() -> (Router<Api>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Description::openapi())
        .merge(api::servers::routes())
        .merge(api::mailboxes::routes())
        .merge(api::groups::routes())
        .merge(api::map::routes())
        .merge(api::settings::routes())
        .merge(api::protect::routes())
        .merge(api::actions::routes())
        .merge(api::switches::routes())
        .merge(api::inside::routes())
        .merge(api::held::routes())
        .merge(api::canaries::routes())
        .merge(api::runs::routes())
        .merge(api::routes::routes())
        .merge(api::events::routes())
        .merge(api::history::routes())
        .merge(api::status::routes())
        .merge(api::link::routes())
        .merge(api::policies::routes())
        .merge(api::health::routes())
        .merge(api::tokens::routes())
        .merge(api::sessions::routes())
        .merge(api::me::routes())
        .merge(api::users::routes())
        .merge(api::tenants::routes())
        .merge(api::audit::routes())
        .merge(api::notifications::routes())
        .merge(api::prices::routes())
        .merge(api::invoices::routes())
        .merge(api::reports::routes())
        .routes(routes!(metrics::metrics))
        .split_for_parts()
}

fn open() -> (Router<Api>, utoipa::openapi::OpenApi) {
    OpenApiRouter::new()
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .merge(api::nginx::routes())
        .merge(api::sessions::open_routes())
        .split_for_parts()
}

fn finish(mut description: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    description.info.version = env!("CARGO_PKG_VERSION").to_owned();
    let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    description.components.get_or_insert_default().security_schemes.insert("token".to_owned(), token.into());
    let cookie = ApiKey::Cookie(ApiKeyValue::new(caller::cookie_name(false)));
    let schemes = &mut description.components.get_or_insert_default().security_schemes;
    schemes.insert("session".to_owned(), SecurityScheme::ApiKey(cookie).into());
    name_operations(&mut description);
    document_refusals(&mut description);
    description
}

/// What every route may answer, so that each need not say it; and every problem under its own media type.
fn document_refusals(description: &mut utoipa::openapi::OpenApi) {
    const REFUSALS: [(&str, &str); 6] = [
        ("400", "It cannot be read, or has an unknown parameter"),
        ("401", "It is not known who asks"),
        ("403", "Whoever asks may not"),
        ("413", "The body is too large"),
        ("422", "It asks for something impossible; `errors` names the fields"),
        ("503", "The database does not answer"),
    ];
    for (path, item) in &mut description.paths.paths {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        let is_guarded = path.starts_with("/api/v1/") && path != "/api/v1/routes/nginx-auth" || path == "/metrics";
        for operation in operations.into_iter().flatten() {
            let responses = &mut operation.responses.responses;
            for (status, text) in REFUSALS.into_iter().filter(|_| is_guarded) {
                responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(problem_response(text)));
            }
            for (status, response) in responses.iter_mut() {
                if let RefOr::T(response) = response
                    && status.starts_with(['4', '5'])
                    && let Some(content) = response.content.shift_remove("application/json")
                {
                    response.content.insert("application/problem+json".to_owned(), content);
                }
            }
        }
    }
}

fn problem_response(text: &str) -> utoipa::openapi::Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(text).content("application/problem+json", content).build()
}

/// Functions are called `list` and `get` in many files; programs made from the document need one name for each.
fn name_operations(description: &mut utoipa::openapi::OpenApi) {
    for item in description.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            let tag = operation.tags.iter().flatten().next();
            if let (Some(tag), Some(id)) = (tag, &operation.operation_id) {
                operation.operation_id = Some(format!("{tag}_{id}"));
            }
        }
    }
}

/// One span a request. The route, never the path: paths carry addresses.
fn span(request: &Request) -> tracing::Span {
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    tracing::debug_span!("request", http.method = %request.method(), http.route = route)
}

fn header_unless_set(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

/// The parameters of each operation, from the document itself: what is not described is not known.
fn known_parameters(description: &utoipa::openapi::OpenApi) -> KnownParameters {
    let mut known = Vec::new();
    for (path, item) in &description.paths.paths {
        let operations = [
            (Method::GET, &item.get),
            (Method::POST, &item.post),
            (Method::PUT, &item.put),
            (Method::PATCH, &item.patch),
            (Method::DELETE, &item.delete),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                known.push((method, path.clone(), query_names(operation)));
            }
        }
    }
    known
}

fn query_names(operation: &Operation) -> HashSet<String> {
    let parameters = operation.parameters.iter().flatten();
    parameters
        .filter_map(|parameter| match parameter {
            RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => Some(parameter.name.clone()),
            _ => None,
        })
        .collect()
}

/// A misspelled filter must not look like an answer.
async fn refuse_unknown_parameters(
    State(known): State<Arc<KnownParameters>>,
    request: Request,
    next: Next,
) -> Response {
    let uri = request.uri();
    if uri.path().contains("%00") || uri.query().is_some_and(|query| query.contains("%00")) {
        let detail = "the address holds the character U+0000, which no name has";
        return ApiError::new(Kind::Malformed, detail, "take `%00` out").into_response();
    }
    match unknown_parameter(&known, &request) {
        Some(error) => error.into_response(),
        None => next.run(request).await,
    }
}

fn unknown_parameter(known: &KnownParameters, request: &Request) -> Option<ApiError> {
    let query = request.uri().query()?;
    let path = request.extensions().get::<MatchedPath>()?.as_str();
    let (_, _, names) = known.iter().find(|(method, route, _)| method == request.method() && route == path)?;
    let (name, _) = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| !names.contains(name.as_ref()))?;
    let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let remedy = match nearest(&name, sorted.iter().copied()) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None if sorted.is_empty() => "this route takes none".to_owned(),
        None => format!("it takes: {}", sorted.join(", ")),
    };
    Some(ApiError::new(Kind::UnknownParameter, format!("this route has no parameter `{name}`"), remedy))
}

async fn nowhere() -> ApiError {
    ApiError::new(Kind::NotFound, "there is nothing at this path", "compare with the routes at /api/docs")
}

async fn not_with_this_method() -> ApiError {
    ApiError::new(Kind::MethodNotAllowed, "this path does not take this method", "compare with the routes at /api/docs")
}
