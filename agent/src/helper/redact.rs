//! A first redaction of what scripts print, before it is stored or told (R16, R33): PEM blocks, `password=...` and its kin, long tokens.
//!
//! Pure; it errs on the side of hiding. It must never be the only guard: the customer sees the text on the box before and after.

use mainstay_shared::patch::MAX_OUTPUT_CHARS;

/// Words whose value is never shown.
const SECRET_WORDS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "authorization",
    "credential",
    "private_key",
];
/// A run of letters and digits this long, with both, is taken for a token.
const TOKEN_CHARS: usize = 32;
const HIDDEN: &str = "[hidden]";

/// The end of `output`, redacted, at most [`MAX_OUTPUT_CHARS`] characters.
pub(super) fn redact(output: &str) -> String {
    let mut lines = Vec::new();
    let mut in_pem = false;
    for line in output.lines() {
        if line.contains("-----BEGIN ") {
            in_pem = true;
            lines.push(HIDDEN.to_owned());
        }
        if !in_pem {
            lines.push(redact_line(line));
        }
        in_pem &= !line.contains("-----END ");
    }
    let text = lines.join("\n");
    let text: String = text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{FFFD}' } else { c }).collect();
    let excess = text.chars().count().saturating_sub(MAX_OUTPUT_CHARS);
    text.chars().skip(excess).collect()
}

fn redact_line(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let hit = SECRET_WORDS.iter().filter_map(|word| value_after(&lower, word)).min();
    let (shown, cut) = hit.map_or((line, false), |at| (&line[..at], true));
    let mut out = String::new();
    let mut word = String::new();
    for c in shown.chars().chain([' ']) {
        if c.is_ascii_alphanumeric() || "+/_-=".contains(c) {
            word.push(c);
            continue;
        }
        out.push_str(if is_token(&word) { HIDDEN } else { &word });
        word.clear();
        out.push(c);
    }
    out.pop();
    if cut {
        out.push_str(HIDDEN);
    }
    out
}

/// Where the value begins that follows `word` and `=`, `:` or a space behind a dash option; the rest of the line counts as value.
fn value_after(lower: &str, word: &str) -> Option<usize> {
    lower.match_indices(word).find_map(|(at, _)| {
        let after = at + word.len();
        let rest = lower[after..].trim_start_matches(['"', '\'', ' ']);
        let option = lower[..at].ends_with("--") && lower[after..].starts_with(' ');
        let skipped = lower.len() - rest.len();
        (option || rest.starts_with(['=', ':'])).then_some(if option { after + 1 } else { skipped + 1 })
    })
}

fn is_token(word: &str) -> bool {
    let has = |fits: fn(&char) -> bool| word.chars().any(|c| fits(&c));
    word.len() >= TOKEN_CHARS && !word.contains('/') && has(char::is_ascii_digit) && has(char::is_ascii_alphabetic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_hidden_and_the_rest_stays() {
        let table = [
            ("an assignment", "export PASSWORD=hunter2", "export PASSWORD=[hidden]"),
            ("json", r#"{"api_key": "abc", "x": 1}"#, r#"{"api_key":[hidden]"#),
            ("an option", "mysql --password hunter2", "mysql --password [hidden]"),
            ("a header", "Authorization: Bearer abc", "Authorization:[hidden]"),
            ("a long token", "id 0123456789abcdef0123456789abcdef ok", "id [hidden] ok"),
            ("a key", "a\n-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\nb", "a\n[hidden]\nb"),
            ("plain words", "migrated 3 tables in /var/lib/acme/db", "migrated 3 tables in /var/lib/acme/db"),
            ("a word about a password", "the password is unchanged", "the password is unchanged"),
            ("an escape sequence", "\u{1b}[31mred", "\u{FFFD}[31mred"),
        ];
        for (what, text, shown) in table {
            assert_eq!(redact(text), shown, "{what}");
        }
    }

    #[test]
    fn only_the_end_of_a_long_output_is_kept() {
        let long = format!("{}end", "x y\n".repeat(10_000));
        let shown = redact(&long);
        assert_eq!(shown.chars().count(), MAX_OUTPUT_CHARS);
        assert!(shown.ends_with("end"));
    }
}
