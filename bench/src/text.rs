//! What generated mail is made of: words that compress as prose does, and base64 as mail programs wrap it.

use base64::Engine;

use crate::random::Random;

const WORDS: [&str; 64] = [
    "the",
    "meeting",
    "we",
    "agreed",
    "on",
    "delivery",
    "of",
    "this",
    "order",
    "before",
    "next",
    "week",
    "please",
    "find",
    "attached",
    "invoice",
    "number",
    "and",
    "let",
    "me",
    "know",
    "if",
    "you",
    "have",
    "any",
    "questions",
    "regards",
    "thanks",
    "for",
    "your",
    "quick",
    "answer",
    "about",
    "project",
    "schedule",
    "budget",
    "change",
    "request",
    "server",
    "mail",
    "standby",
    "report",
    "quarter",
    "customer",
    "contract",
    "draft",
    "review",
    "comments",
    "until",
    "friday",
    "morning",
    "call",
    "office",
    "travel",
    "hotel",
    "booking",
    "train",
    "flight",
    "team",
    "plan",
    "version",
    "release",
    "ticket",
    "update",
];

pub(crate) fn words(random: &mut Random, count: usize) -> String {
    let chosen: Vec<_> = (0..count).map(|_| WORDS[random.below(64) as usize]).collect();
    chosen.join(" ")
}

/// Adds lines of words until `out` is about `end` bytes long.
pub(crate) fn text_until(out: &mut Vec<u8>, end: usize, random: &mut Random) {
    let mut column = 0;
    while out.len() + 2 < end {
        // One number gives ten words.
        let mut bits = random.next();
        for _ in 0..10 {
            let word = WORDS[(bits & 63) as usize];
            bits >>= 6;
            out.extend_from_slice(word.as_bytes());
            column += word.len() + 1;
            if column > 66 {
                out.extend_from_slice(b"\r\n");
                column = 0;
            } else {
                out.push(b' ');
            }
        }
    }
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn wrap_base64(out: &mut Vec<u8>, bytes: &[u8], columns: usize) {
    let mut line = vec![0; columns];
    for chunk in bytes.chunks(columns / 4 * 3) {
        let written = base64::engine::general_purpose::STANDARD
            .encode_slice(chunk, &mut line)
            .expect("a line has room for its own bytes");
        out.extend_from_slice(&line[..written]);
        out.extend_from_slice(b"\r\n");
    }
}
