//! The tokens of one response: atoms, strings and parentheses.
//!
//! In: the octets of a whole response, literals included. Out: tokens, borrowed where possible.
//! Keeps true: whatever a server sends ends in tokens or in `None`, never in a panic; skipping the unknown is linear.

use std::borrow::Cow;

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    Open,
    Close,
    /// Unquoted; also flags, numbers, sets and NIL.
    Atom(&'a [u8]),
    /// A quoted string or a literal.
    Text(Cow<'a, [u8]>),
}

/// Reads tokens off the front.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tokens<'a>(&'a [u8]);

/// How many octets a `{12}` or `{12+}` at the end of `line` announces, and where it begins.
pub(crate) fn announced_literal(line: &[u8]) -> Option<(usize, u64)> {
    let inner = line.strip_suffix(b"}")?;
    let inner = inner.strip_suffix(b"+").unwrap_or(inner);
    let brace = memchr::memrchr(b'{', inner)?;
    Some((brace, number(&inner[brace + 1..])?))
}

/// A plain decimal number.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, &digit| {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 { None } else { sum.checked_mul(10)?.checked_add(u64::from(digit)) }
    })
}

impl<'a> Tokens<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Passes `(`, if it is next.
    pub(crate) fn open(&mut self) -> bool {
        let mut ahead = *self;
        let open = ahead.next() == Some(Token::Open);
        if open {
            *self = ahead;
        }
        open
    }

    pub(crate) fn atom(&mut self) -> Option<&'a [u8]> {
        match self.next()? {
            Token::Atom(atom) => Some(atom),
            _ => None,
        }
    }

    /// An atom or a string; NIL is an atom like any other here.
    pub(crate) fn string(&mut self) -> Option<Cow<'a, [u8]>> {
        match self.next()? {
            Token::Atom(atom) => Some(Cow::Borrowed(atom)),
            Token::Text(text) => Some(text),
            Token::Open | Token::Close => None,
        }
    }

    /// A string, or NIL as `Some(None)`.
    pub(crate) fn nil_or_string(&mut self) -> Option<Option<Cow<'a, [u8]>>> {
        match self.next()? {
            Token::Atom(atom) if atom.eq_ignore_ascii_case(b"NIL") => Some(None),
            Token::Atom(atom) => Some(Some(Cow::Borrowed(atom))),
            Token::Text(text) => Some(Some(text)),
            Token::Open | Token::Close => None,
        }
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        number(self.atom()?)
    }

    pub(crate) fn number32(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    /// Passes one token, or a whole list.
    pub(crate) fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            match self.next()? {
                Token::Open => depth += 1,
                Token::Close => depth = depth.checked_sub(1)?,
                Token::Atom(_) | Token::Text(_) => {}
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    fn quoted(&mut self) -> Option<Token<'a>> {
        let body = &self.0[1..];
        let mut at = memchr::memchr2(b'"', b'\\', body)?;
        if body[at] == b'"' {
            self.0 = &body[at + 1..];
            return Some(Token::Text(Cow::Borrowed(&body[..at])));
        }
        let mut text = body[..at].to_vec();
        loop {
            match *body.get(at)? {
                b'"' => break,
                b'\\' => {
                    text.push(*body.get(at + 1)?);
                    at += 2;
                }
                byte => {
                    text.push(byte);
                    at += 1;
                }
            }
        }
        self.0 = &body[at + 1..];
        Some(Token::Text(Cow::Owned(text)))
    }

    fn literal(&mut self) -> Option<Token<'a>> {
        let line_end = memchr::memchr(b'\n', self.0)?;
        let line = &self.0[..line_end];
        let (_, length) = announced_literal(line.strip_suffix(b"\r").unwrap_or(line))?;
        let body = &self.0[line_end + 1..];
        let text = body.get(..usize::try_from(length).ok()?)?;
        self.0 = &body[text.len()..];
        Some(Token::Text(Cow::Borrowed(text)))
    }

    fn bare(&mut self) -> Token<'a> {
        let end = self.0.iter().position(|&byte| is_delimiter(byte)).unwrap_or(self.0.len());
        let mut end = end.max(1);
        // `BODY[HEADER.FIELDS (DATE)]<0>` is one item name in spite of what its brackets hold.
        let section = self.0[..end].contains(&b'[')
            && !self.0[..end].contains(&b']')
            && (starts_with(self.0, b"BODY") || starts_with(self.0, b"BINARY"));
        if section && let Some(close) = memchr::memchr(b']', &self.0[end..]) {
            let after = end + close + 1;
            end = after + self.0[after..].iter().position(|&byte| is_delimiter(byte)).unwrap_or(self.0.len() - after);
        }
        let (atom, rest) = self.0.split_at(end);
        self.0 = rest;
        Token::Atom(atom)
    }
}

fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b' ' | b'(' | b')' | b'\r' | b'\n' | b'\t')
}

fn starts_with(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    /// The next token; `None` at the end, and for good at a string that does not end.
    fn next(&mut self) -> Option<Token<'a>> {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.0 {
            self.0 = rest;
        }
        let token = match *self.0.first()? {
            b'(' => {
                self.0 = &self.0[1..];
                Some(Token::Open)
            }
            b')' => {
                self.0 = &self.0[1..];
                Some(Token::Close)
            }
            b'"' => self.quoted(),
            b'{' => self.literal(),
            b'~' if self.0.get(1) == Some(&b'{') => self.literal(),
            _ => Some(self.bare()),
        };
        if token.is_none() {
            self.0 = &[];
        }
        token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: &str) {
        let mut shown = Vec::new();
        for token in Tokens::new(bytes) {
            shown.push(match token {
                Token::Open => "(".to_owned(),
                Token::Close => ")".to_owned(),
                Token::Atom(atom) => atom.escape_ascii().to_string(),
                Token::Text(text) => format!("<{}>", text.escape_ascii()),
            });
        }
        assert_eq!(shown.join(" "), expected);
    }

    #[test]
    fn atoms_strings_and_lists() {
        check(br#"(\Seen $Work) "/" a&b-"#, r"( \\Seen $Work ) </> a&b-");
        check(br#""a\"b\\" "" NIL"#, r#"<a\"b\\> <> NIL"#);
        check(b"{3}\r\na)b x", "<a)b> x");
        check(b"~{2+}\r\n\xff( 1", "<\\xff(> 1");
        check(b"BODY[HEADER.FIELDS (DATE \"x)\")]<0> {1}\r\n(", "BODY[HEADER.FIELDS (DATE \\\"x)\\\")]<0> <(>");
        check(b"BODY[] NIL)", "BODY[] NIL )");
        check(b"k[ey (x)", "k[ey ( x )");
    }

    #[test]
    fn what_does_not_end_reads_as_nothing() {
        for bytes in [&b"\"abc"[..], b"\"a\\", b"{5}\r\nabc", b"{99999999999999999999999}\r\nx", b"{x}", b"~{"] {
            check(bytes, "");
        }
        let mut deep = Tokens::new(b"((((");
        assert_eq!(deep.skip_value(), None);
        assert_eq!(Tokens::new(b")").skip_value(), None);
    }

    #[test]
    fn skipping_passes_one_value() {
        let mut tokens = Tokens::new(b"(a (b \"c)\") d) 7 x");
        assert_eq!(tokens.skip_value(), Some(()));
        assert_eq!((tokens.number32(), tokens.skip_value(), tokens.skip_value()), (Some(7), Some(()), None));
    }
}
