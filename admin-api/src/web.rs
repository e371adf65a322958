//! The admin web, embedded: a page and files without data, so they load before there is a token. The page asks for one.
//!
//! In: `web/dist`, which is what `npm run build` makes of `web/`, each file also compressed. Out: the page under the address of
//! every screen, since the page itself decides what to show there.
//! Keeps true: nothing from elsewhere and nothing inline but styles that carry the nonce of their own answer.

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rust_embed::RustEmbed;
use utoipa_swagger_ui::{Config, SwaggerUi};

/// What `npm run build` made of `web/`.
#[derive(RustEmbed)]
#[folder = "../web/dist/"]
struct Web;

/// Nothing from elsewhere, nothing inline.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";
/// Swagger UI writes style attributes and shows its icons as data.
const DOCS_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; \
     form-action 'self'; frame-ancestors 'none'; object-src 'none'";
/// Where the page has its nonce.
const NONCE: &str = "__STYLE_NONCE__";
/// The addresses of the screens, as `web/src/screens.tsx` names them.
const SCREENS: &[&str] = &[
    "/",
    "/mailboxes",
    "/mailboxes/{*rest}",
    "/protect",
    "/map",
    "/settings",
    "/servers",
    "/servers/{*rest}",
    "/link",
    "/policies",
    "/policies/{*rest}",
    "/switchover",
    "/switchback",
    "/runs",
    "/runs/{*rest}",
    "/events",
    "/notifications",
    "/billing",
    "/billing/{*rest}",
    "/tokens",
    "/people",
    "/me",
    "/audit",
];
/// How a file is stored besides as it is: the word in `Accept-Encoding` and the ending of its name, best first.
const ENCODINGS: [(&str, &str); 2] = [("br", "br"), ("gzip", "gz")];
/// Files below have a digest of their content in their names.
const HASHED: &str = "assets/";

/// The page and its files.
pub(crate) fn pages<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let files = get(|Path(path): Path<String>, headers: HeaderMap| async move { file(&path, &headers) });
    SCREENS.iter().fold(Router::new().route("/web/{*path}", files), |router, path| router.route(path, get(page)))
}

/// The description of the API, to browse. It fetches `/api/openapi.json` with the token the web page was given.
pub(crate) fn docs<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let ui = SwaggerUi::new("/api/docs").config(Config::from("/api/openapi.json"));
    let initializer = |headers: HeaderMap| async move { file("swagger-initializer.js", &headers) };
    Router::new().merge(Router::from(ui)).route("/api/docs/swagger-initializer.js", get(initializer)).layer(
        axum::middleware::map_response(|mut response: Response| async move {
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(DOCS_POLICY));
            response
        }),
    )
}

/// The one page. Its nonce is for this answer only, so the answer is kept nowhere.
async fn page() -> Response {
    let Some(page) = Web::get("index.html") else { return missing() };
    let nonce = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>());
    let text = String::from_utf8_lossy(&page.data).replace(NONCE, &nonce);
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::CONTENT_SECURITY_POLICY, format!("{POLICY}; style-src 'self' 'nonce-{nonce}'")),
    ];
    (headers, text).into_response()
}

fn file(path: &str, asked: &HeaderMap) -> Response {
    let Some(plain) = Web::get(path) else { return missing() };
    let encoded = ENCODINGS
        .into_iter()
        .filter(|(word, _)| accepts(asked, word))
        .find_map(|(word, ending)| Some((word, Web::get(&format!("{path}.{ending}"))?)));
    let (encoding, file) = encoded.map_or((None, plain), |(word, file)| (Some(word), file));
    let tag = format!("\"{}\"", blake3::hash(&file.data).to_hex());
    let mime = mime(path);
    let caching = if path.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let mut headers: Vec<(HeaderName, String)> = vec![
        (header::CONTENT_TYPE, mime),
        (header::ETAG, tag.clone()),
        (header::CACHE_CONTROL, caching.to_owned()),
        (header::CONTENT_SECURITY_POLICY, POLICY.to_owned()),
        (header::VARY, "accept-encoding".to_owned()),
    ];
    let unchanged = asked.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    // A browser gives its stored page the headers of the 304 (RFC 9111 §3.2), so they are the page's own.
    if !unchanged {
        headers.extend(encoding.map(|encoding| (header::CONTENT_ENCODING, encoding.to_owned())));
    }
    let body = if unchanged { Vec::new() } else { file.data.into_owned() };
    let status = if unchanged { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let mut response = (status, body).into_response();
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn missing() -> Response {
    (StatusCode::NOT_FOUND, "there is no such file").into_response()
}

fn mime(path: &str) -> String {
    let mime = Web::get(path).map(|file| file.metadata.mimetype().to_owned()).unwrap_or_default();
    if mime.starts_with("text/") { format!("{mime}; charset=utf-8") } else { mime }
}

/// Whether an answer may be encoded so. A client that names the encoding only to refuse it (`;q=0`) is heard.
fn accepts(asked: &HeaderMap, encoding: &str) -> bool {
    let header = asked.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    header.split(',').any(|item| {
        let (name, weight) = item.split_once(';').unwrap_or((item, ""));
        let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q == 0.0));
        name.trim().eq_ignore_ascii_case(encoding) && !refused
    })
}
