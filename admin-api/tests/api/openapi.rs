//! The description of the API, pinned: a change to it is seen in review.

use std::path::Path;

/// Set to write the document anew: `UNDERSTUDY_PIN=1 cargo test -p understudy-admin-api`.
const PIN: &str = "UNDERSTUDY_PIN";

#[test]
fn the_document_is_the_one_in_the_repository() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let document = understudy_admin_api::openapi().to_pretty_json().unwrap() + "\n";
    if std::env::var_os(PIN).is_some() {
        std::fs::write(&path, &document).unwrap();
    }
    let pinned = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(pinned == document, "the API changed; run with {PIN}=1 and look at the difference");
}
