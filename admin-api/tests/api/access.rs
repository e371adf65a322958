//! Who gets in, and what each role may do.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
};
use understudy_admin_api::AdminConfig;

use crate::service::{Service, server};

/// Every operation of the document, with something in the place of each variable.
fn operations(document: &Value) -> Vec<(String, String)> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path.replace("{name}", "x").replace("{address}", "x").replace("{id}", "x");
        for method in ["get", "post", "patch", "put", "delete"] {
            if item.get(method).is_some() {
                operations.push((method.to_uppercase(), path.clone()));
            }
        }
    }
    operations
}

#[tokio::test]
async fn no_route_but_health_is_open() {
    let service = Service::start().await;
    let document = service.get("/api/openapi.json").await.expect(200).body;
    let operations = operations(&document);
    assert!(operations.len() > 25, "the document names {} operations", operations.len());
    let bad = [vec![], vec![("authorization", "Bearer understudy_wrong")], vec![("authorization", "Basic YTpi")]];
    for (method, path) in operations {
        // nginx has a key of its own; `routes` tests it.
        if path == "/api/v1/routes/nginx-auth" {
            service.ask_with(&method, &path, None, &[]).await.expect(403);
            continue;
        }
        let open = ["/healthz", "/readyz"].contains(&path.as_str());
        // Whoever logs in is not known yet; here a body lacks.
        if (method.as_str(), path.as_str()) == ("POST", "/api/v1/sessions") {
            service.ask_with(&method, &path, None, &[]).await.expect(422);
            continue;
        }
        for headers in &bad {
            let answer = service.ask_with(&method, &path, None, headers).await;
            let expected = if open { 200 } else { 401 };
            assert_eq!(answer.status.as_u16(), expected, "{method} {path}");
            if !open {
                assert_eq!(answer.body["type"], "urn:understudy:problem:unauthorized", "{method} {path}");
                assert_eq!(answer.header("content-type"), "application/problem+json");
                assert_eq!(answer.header("www-authenticate"), "Bearer");
            }
        }
    }
    for path in ["/api/openapi.json", "/api/v1/nowhere", "/nowhere"] {
        service.ask_with("GET", path, None, &[]).await.expect(401);
        if path != "/api/openapi.json" {
            service.get(path).await.expect(404);
        }
    }
}

#[tokio::test]
async fn a_viewer_reads_an_operator_acts_and_a_user_does_nothing() {
    let service = Service::with_mailboxes().await;
    let reading = ("GET", "/api/v1/mailboxes", None);
    let acting = ("POST", "/api/v1/mailboxes/ana@example.org/pause", Some(json!({})));
    let changing = ("POST", "/api/v1/servers", Some(server("mail-c", "primary")));
    for (role, may) in [
        ("viewer", [200, 403, 403]),
        ("billing", [200, 403, 403]),
        ("auditor", [200, 403, 403]),
        ("operator", [200, 202, 403]),
        ("user", [200, 403, 403]),
        ("administrator", [200, 202, 201]),
    ] {
        let bearer = format!("Bearer {}", service.token(role).await);
        for ((method, path, body), status) in [reading.clone(), acting.clone(), changing.clone()].into_iter().zip(may) {
            let answer = service.ask_with(method, path, body, &[("authorization", &bearer)]).await;
            assert_eq!(answer.status.as_u16(), status, "{role} {method} {path}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn a_token_is_shown_once_works_and_ends_when_revoked() {
    let service = Service::start().await;
    let made = service.post("/api/v1/tokens", json!({"name": "screen", "role": "viewer"})).await.expect(201).body;
    let secret = made["token"].as_str().unwrap();
    assert!(secret.starts_with("understudy_") && secret.len() > 50, "{secret}");
    let listed = service.get("/api/v1/tokens").await.expect(200).body.to_string();
    assert!(listed.contains("screen") && !listed.contains(secret), "{listed}");

    let bearer = format!("Bearer {secret}");
    let headers = [("authorization", bearer.as_str())];
    service.ask_with("GET", "/api/v1/status", None, &headers).await.expect(200);
    service.ask_with("GET", "/api/v1/tokens", None, &headers).await.expect(403);
    let again = service.post("/api/v1/tokens", json!({"name": "screen", "role": "viewer"})).await.expect(409);
    assert!(again.body["remedy"].as_str().unwrap().contains("another name"));
    service.ask("DELETE", "/api/v1/tokens/screen", None).await.expect(204);
    service.ask_with("GET", "/api/v1/status", None, &headers).await.expect(401);
    service.ask("DELETE", "/api/v1/tokens/nobody", None).await.expect(404);
}

#[tokio::test]
async fn an_expired_token_opens_nothing() {
    let service = Service::start().await;
    let late = json!({"name": "late", "role": "viewer", "expires_at": "2020-01-01T00:00:00Z"});
    let refused = service.post("/api/v1/tokens", late).await.expect(422);
    assert_eq!(refused.body["errors"][0]["pointer"], "/expires_at");
    let bearer = format!("Bearer {}", service.token("viewer").await);
    service.execute("update token set expires_at = now() - interval '1 second' where role = 'viewer'").await;
    service.ask_with("GET", "/api/v1/status", None, &[("authorization", &bearer)]).await.expect(401);
}

#[tokio::test]
async fn the_page_and_the_docs_load_before_there_is_a_token_under_a_strict_policy() {
    let service = Service::start().await;
    let mut nonces = Vec::new();
    for path in ["/", "/mailboxes", "/mailboxes/ana@example.org", "/runs/7", "/switchover"] {
        let answer = service.ask_with("GET", path, None, &[]).await.expect(200);
        assert!(answer.header("content-type").starts_with("text/html"), "{path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'self'") && !policy.contains("unsafe"), "{path}: {policy}");
        // Its nonce is for one answer, which therefore must not be kept.
        assert_eq!(answer.header("cache-control"), "no-store");
        let nonce = policy.split("'nonce-").nth(1).unwrap().trim_end_matches('\'').to_owned();
        let page = answer.body.as_str().unwrap();
        assert!(page.contains(&format!("content=\"{nonce}\"")), "{page}");
        assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains("onclick"));
        nonces.push(nonce);
    }
    nonces.dedup();
    assert_eq!(nonces.len(), 5);
    service.ask_with("GET", "/api/docs/", None, &[]).await.expect(200);
    let initializer = service.ask_with("GET", "/api/docs/swagger-initializer.js", None, &[]).await.expect(200);
    assert!(initializer.body.as_str().unwrap().contains("Authorization"));
    for nowhere in ["/web/../Cargo.toml", "/web/index.htm"] {
        service.ask_with("GET", nowhere, None, &[]).await.expect(404);
    }
}

#[tokio::test]
async fn every_screen_of_the_web_can_be_opened_by_its_address() {
    let service = Service::start().await;
    let screens = include_str!("../../../web/src/screens.tsx");
    let paths: Vec<&str> = screens.split("{ path: \"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(paths.len() > 10, "{paths:?}");
    for path in paths {
        let path: String =
            path.split('/').map(|part| if part.starts_with(':') { "x" } else { part }).collect::<Vec<_>>().join("/");
        service.ask_with("GET", &path, None, &[]).await.expect(200);
    }
}

#[tokio::test]
async fn the_files_of_the_page_come_compressed_and_are_kept() {
    let service = Service::start().await;
    let page = service.ask_with("GET", "/", None, &[]).await.body;
    let page = page.as_str().unwrap();
    for (ending, content) in [(".js\"", "text/javascript"), (".css\"", "text/css")] {
        let end = page.find(ending).unwrap() + ending.len() - 1;
        let path = &page[page[..end].rfind("/web/assets/").unwrap()..end];
        for (accepted, encoding) in [("gzip, deflate, br", "br"), ("gzip, br;q=0", "gzip"), ("identity", "")] {
            let asked = [("accept-encoding", accepted)];
            let answer = service.ask_with("GET", path, None, &asked).await.expect(200);
            assert_eq!(answer.header("content-encoding"), encoding, "{path}, {accepted}");
            assert!(answer.header("content-type").starts_with(content), "{path}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
            assert!(answer.header("cache-control").contains("immutable"), "{path}");
            let known = [("accept-encoding", accepted), ("if-none-match", answer.header("etag"))];
            // A browser gives the file it keeps the headers of this answer.
            let unchanged = service.ask_with("GET", path, None, &known).await.expect(304);
            for header in ["content-security-policy", "cache-control", "vary"] {
                assert_eq!(unchanged.header(header), answer.header(header), "{path}: {header}");
            }
        }
    }
}

#[tokio::test]
async fn the_local_socket_needs_no_token_and_only_its_owner_can_open_it() {
    let service = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = AdminConfig {
        pool: service.pool.clone(),
        listener,
        public_url: None,
        socket: Some(socket.clone()),
        metrics: None,
        nginx: None,
        data_dir: folder.path().to_owned(),
        settings: Vec::new(),
    };
    let running = tokio::spawn(understudy_admin_api::run(config, service.shutdown.clone()));
    let request = b"GET /api/v1/tokens HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let mut answer = String::new();
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(request).await.unwrap();
    tcp.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");

    // The socket is opened before TCP is served.
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    answer.clear();
    let mut unix = UnixStream::connect(&socket).await.unwrap();
    unix.write_all(request).await.unwrap();
    unix.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    // A stream that never ends by itself does not hold the shutdown up.
    let mut listening = UnixStream::connect(&socket).await.unwrap();
    listening.write_all(b"GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0; 15];
    listening.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    service.shutdown.cancel();
    running.await.unwrap().unwrap();
    assert!(!socket.exists());
}
