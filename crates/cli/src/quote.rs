//! Strings in double quotes as Go writes and reads them.

/// Go's `%q`.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            quote_char(c, &mut text);
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text.push('"');
    text
}

fn quote_char(c: char, text: &mut String) {
    match c {
        '"' => text.push_str("\\\""),
        '\\' => text.push_str("\\\\"),
        '\x07' => text.push_str("\\a"),
        '\x08' => text.push_str("\\b"),
        '\x0c' => text.push_str("\\f"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        '\x0b' => text.push_str("\\v"),
        c if is_print(c) => text.push(c),
        c if (c as u32) < 0x20 || c == '\x7f' => text.push_str(&format!("\\x{:02x}", c as u32)),
        c if (c as u32) < 0x1_0000 => text.push_str(&format!("\\u{:04x}", c as u32)),
        c => text.push_str(&format!("\\U{:08x}", c as u32)),
    }
}

fn is_print(c: char) -> bool {
    // Behind another character, so that accents which combine with it count as printable.
    c == '\'' || format!("a{c}").escape_debug().nth(1) != Some('\\')
}

/// Reads a string in double quotes, or raw in back quotes, from the start of `text`; answers it and what follows.
pub(crate) fn unquote(text: &str) -> Option<(Vec<u8>, &str)> {
    if let Some(raw) = text.strip_prefix('`') {
        return raw.split_once('`').map(|(raw, rest)| (raw.as_bytes().to_vec(), rest));
    }
    let mut rest = text.strip_prefix('"')?;
    let mut bytes = Vec::new();
    loop {
        let c = rest.chars().next()?;
        rest = &rest[c.len_utf8()..];
        match c {
            '"' => return Some((bytes, rest)),
            '\n' => return None,
            '\\' => rest = escape(rest, &mut bytes)?,
            c => bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// What follows a backslash; answers what follows the escape.
fn escape<'a>(text: &'a str, bytes: &mut Vec<u8>) -> Option<&'a str> {
    let kind = text.chars().next()?;
    let rest = &text[kind.len_utf8()..];
    let (digits, radix, start) = match kind {
        'x' => (2, 16, rest),
        'u' => (4, 16, rest),
        'U' => (8, 16, rest),
        '0'..='7' => (3, 8, text),
        _ => {
            let at = "abfnrtv\\\"".find(kind)?;
            bytes.push(b"\x07\x08\x0c\n\r\t\x0b\\\""[at]);
            return Some(rest);
        }
    };
    let number = start.get(..digits)?;
    if !number.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let number = u32::from_str_radix(number, radix).ok()?;
    match kind {
        'u' | 'U' => bytes.extend(char::from_u32(number)?.encode_utf8(&mut [0; 4]).as_bytes()),
        _ => bytes.push(u8::try_from(number).ok()?),
    }
    Some(&start[digits..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_as_go_does() {
        let table: [(&[u8], &str); 7] = [
            (b"plain 'text'", r#""plain 'text'""#),
            (b"a\"\\b", r#""a\"\\b""#),
            (b"\x00\x07\x08\x0c\n\r\t\x0b\x7f", r#""\x00\a\b\f\n\r\t\v\x7f""#),
            (b"\xff\xc3(", r#""\xff\xc3(""#),
            ("grün 世界 🦀".as_bytes(), "\"grün 世界 🦀\""),
            ("e\u{301}".as_bytes(), "\"e\u{301}\""),
            ("\u{a0}\u{200b}\u{e0001}".as_bytes(), r#""\u00a0\u200b\U000e0001""#),
        ];
        for (bytes, quoted) in table {
            assert_eq!(quote(bytes), quoted);
            assert_eq!(unquote(quoted), Some((bytes.to_vec(), "")));
        }
    }

    #[test]
    fn unquoted_up_to_the_closing_quote() {
        assert_eq!(unquote(r#""a\101\x62") = "1""#), Some((b"aAb".to_vec(), r#") = "1""#)));
        assert_eq!(unquote(r"`a\n` b"), Some((br"a\n".to_vec(), " b")));
        for wrong in ["", "a", "\"a", r#""\q""#, r#""\x4""#, r#""\777""#, r#""\ud800""#, "`a"] {
            assert_eq!(unquote(wrong), None, "{wrong}");
        }
    }
}
