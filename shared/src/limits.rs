//! How large anything on the wire may be. Both sides enforce these: the agent cuts, the collector refuses.

/// A report's body as sent (compressed).
pub const MAX_BODY_BYTES: usize = 1 << 20;
/// A report's body once decompressed; a bomb is refused at this size.
pub const MAX_INFLATED_BYTES: usize = 8 << 20;
/// Records in one report.
pub const MAX_RECORDS: usize = 500;
/// One record's JSON.
pub const MAX_RECORD_BYTES: usize = 64 << 10;
/// A name (component, service, check, host), in characters.
pub const MAX_NAME_CHARS: usize = 128;
/// A line of text (a check's output, a summary), in characters.
pub const MAX_TEXT_CHARS: usize = 1024;
/// Business services that one appliance may declare.
pub const MAX_SERVICES: usize = 64;
/// Checks of one business service.
pub const MAX_CHECKS: usize = 16;
/// Current values in a heartbeat.
pub const MAX_VALUES: usize = 512;

/// Open faults that one record may name: with their ids they fit [`MAX_RECORD_BYTES`].
pub const MAX_OPEN_FAULTS: usize = 500;
/// `text` limited on the way in (R11): control characters other than tab become U+FFFD, longer than `max_chars` is cut with an ellipsis.
#[must_use]
pub fn clean_text(text: &str, max_chars: usize) -> String {
    let mut out: String = text
        .chars()
        .take(max_chars)
        .map(|c| if (c.is_control() && c != '\t') || is_bidi_control(c) { '\u{FFFD}' } else { c })
        .collect();
    if text.chars().nth(max_chars).is_some() {
        out.pop();
        out.push('…');
    }
    out
}

/// Characters that reorder what stands around them on a page.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Whether `name` may name a component, service or check: 1 to [`MAX_NAME_CHARS`] characters, none of them a control character.
#[must_use]
pub fn is_good_name(name: &str) -> bool {
    !name.is_empty() && name.chars().count() <= MAX_NAME_CHARS && !name.chars().any(|c| c.is_control() || is_bidi_control(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_cut_and_its_controls_are_shown_as_such() {
        assert_eq!(clean_text("a\u{202E}b\n", 10), "a\u{FFFD}b\u{FFFD}");
        assert_eq!(clean_text("abcdef", 4), "abc…");
        assert_eq!(clean_text("abcd", 4), "abcd");
    }
}
