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

#[test]
fn every_operation_has_a_name_of_its_own() {
    let document = serde_json::to_value(understudy_admin_api::openapi()).unwrap();
    let operations =
        document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    let mut names: Vec<&str> = operations.filter_map(|operation| operation["operationId"].as_str()).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "{names:?}");
}

/// Programs are made from the document, among them the web's: what it refers to is there.
#[test]
fn every_reference_leads_somewhere() {
    let document = serde_json::to_value(understudy_admin_api::openapi()).unwrap();
    let text = document.to_string();
    let references: Vec<&str> =
        text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap_or_default()).collect();
    assert!(references.len() > 100, "{}", references.len());
    for reference in references {
        assert!(document.pointer(reference).is_some(), "{reference} is nowhere");
    }
}
