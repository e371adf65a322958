//! Numbers in sentences for people.

use std::fmt::Display;

/// `1 mailbox`, `3 mailboxes`
pub fn counted<N: Display + PartialEq + From<u8>>(number: N, one: &str, many: &str) -> String {
    if number == N::from(1) { format!("1 {one}") } else { format!("{number} {many}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one_and_none_are_many() {
        assert_eq!(counted(1, "mailbox", "mailboxes"), "1 mailbox");
        assert_eq!(counted(0, "mailbox", "mailboxes"), "0 mailboxes");
    }
}
