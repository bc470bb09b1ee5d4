//! One part of a `multipart/form-data` body (RFC 7578), as a browser's form with a file sends it. Total: what is no such body has no parts.

use axum::http::{HeaderMap, header};

/// The content of the first part called `name`.
pub(crate) fn part<'b>(headers: &HeaderMap, body: &'b [u8], name: &str) -> Option<&'b [u8]> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let (_, boundary) = kind.strip_prefix("multipart/form-data")?.split_once("boundary=")?;
    let boundary = boundary.split(';').next()?.trim().trim_matches('"');
    if !(1..=70).contains(&boundary.len()) {
        return None;
    }
    let line = format!("--{boundary}");
    let wanted = format!("name=\"{name}\"");
    let mut rest = body;
    while let Some(at) = find(rest, line.as_bytes()) {
        rest = &rest[at + line.len()..];
        let head = find(rest, b"\r\n\r\n")?;
        let content = &rest[head + 4..];
        let end = find(content, format!("\r\n{line}").as_bytes())?;
        if std::str::from_utf8(&rest[..head]).is_ok_and(|head| head.contains(&wanted)) {
            return Some(&content[..end]);
        }
        rest = &content[end..];
    }
    None
}

fn find(within: &[u8], what: &[u8]) -> Option<usize> {
    within.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_part_is_found_by_its_name_and_nothing_breaks_on_what_is_no_form() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("multipart/form-data; boundary=xyz"));
        let body = b"--xyz\r\nContent-Disposition: form-data; name=\"csrf\"\r\n\r\ntoken\r\n--xyz\r\nContent-Disposition: form-data; \
            name=\"receipt\"; filename=\"a.mreceipt\"\r\nContent-Type: application/octet-stream\r\n\r\n{\"a\":\r\n1}\r\n--xyz--\r\n";
        assert_eq!(part(&headers, body, "csrf"), Some(b"token".as_slice()));
        assert_eq!(part(&headers, body, "receipt"), Some(b"{\"a\":\r\n1}".as_slice()));
        assert_eq!(part(&headers, body, "other"), None);
        for cut in 0..body.len() {
            part(&headers, &body[..cut], "receipt");
        }
        assert_eq!(part(&HeaderMap::new(), body, "csrf"), None);
    }
}
