//! The nearest valid name, for whoever mistyped one.

/// Names less alike than this are no help.
const ALIKE: f64 = 0.75;

/// The candidate most like `name`, if any is.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let name = name.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&name, &candidate.to_lowercase()), candidate))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, candidate)| candidate.to_owned())
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_of_the_finger_finds_its_name_and_a_stranger_none() {
        assert_eq!(nearest("mial-a", ["mail-a", "dr-1"]), Some("mail-a".to_owned()));
        assert_eq!(nearest("Mail-A", ["mail-a", "mail-b"]), Some("mail-a".to_owned()));
        assert_eq!(nearest("zzz", ["mail-a", "dr-1"]), None);
    }
}
