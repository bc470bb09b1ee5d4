//! Which bytes of a file a request wants: `Range` and `If-Range` as RFC 9110 has them, one range at a time. Pure.

/// What is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it.
    Whole,
    /// These bytes, both ends included: 206.
    Part { first: u64, last: u64 },
    /// Nothing of it lies there: 416.
    Beyond,
}

/// What `range` wants of a file of `length` bytes whose strong entity tag is `tag`. What can't be read, several ranges and an `If-Range` of
/// another file ask for all of it.
pub(crate) fn wanted(range: Option<&str>, if_range: Option<&str>, tag: &str, length: u64) -> Wanted {
    let Some(range) = range else { return Wanted::Whole };
    if if_range.is_some_and(|given| given != tag) {
        return Wanted::Whole;
    }
    let Some((from, to)) = range.strip_prefix("bytes=").and_then(|spec| spec.split_once('-')) else { return Wanted::Whole };
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    match (number(from), number(to)) {
        (Some(first), Some(last)) if first > last => Wanted::Whole,
        (Some(first), _) if to.is_empty() || number(to).is_some() => match first < length {
            true => Wanted::Part { first, last: number(to).unwrap_or(u64::MAX).min(length - 1) },
            false => Wanted::Beyond,
        },
        (None, Some(0)) if from.is_empty() => Wanted::Beyond,
        (None, Some(count)) if from.is_empty() && length > 0 => {
            Wanted::Part { first: length.saturating_sub(count), last: length - 1 }
        }
        _ => Wanted::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_the_same_file_is_answered_in_part() {
        let part = |first, last| Wanted::Part { first, last };
        let rows = [
            ("nothing asked", None, None, Wanted::Whole),
            ("the beginning", Some("bytes=0-9"), None, part(0, 9)),
            ("from there on", Some("bytes=40-"), None, part(40, 99)),
            ("more than there is", Some("bytes=40-500"), None, part(40, 99)),
            ("the last ten", Some("bytes=-10"), None, part(90, 99)),
            ("the last thousand", Some("bytes=-1000"), None, part(0, 99)),
            ("it has all", Some("bytes=100-"), None, Wanted::Beyond),
            ("none at all", Some("bytes=-0"), None, Wanted::Beyond),
            ("the same file", Some("bytes=40-"), Some("\"t\""), part(40, 99)),
            ("another file by now", Some("bytes=40-"), Some("\"o\""), Wanted::Whole),
            ("several", Some("bytes=0-1,5-6"), None, Wanted::Whole),
            ("backwards", Some("bytes=9-0"), None, Wanted::Whole),
            ("another unit", Some("lines=0-9"), None, Wanted::Whole),
            ("signs", Some("bytes=+1-"), None, Wanted::Whole),
            ("words", Some("bytes=a-b"), None, Wanted::Whole),
            ("nothing", Some("bytes=-"), None, Wanted::Whole),
        ];
        for (sentence, range, if_range, expected) in rows {
            assert_eq!(wanted(range, if_range, "\"t\"", 100), expected, "{sentence}");
        }
        assert_eq!(wanted(Some("bytes=0-"), None, "\"t\"", 0), Wanted::Beyond, "an empty file");
    }
}
