//! Numbers as people read them.

/// With commas: `29,567`.
pub fn count(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        let left = digits.len() - n;
        if n > 0 && left.is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three digits that count: `0.0123`, `4.56`, `78.9`, `1,234`.
pub fn short(number: f64) -> String {
    match number.abs() {
        0.0 => "0".to_owned(),
        size if size >= 99.95 => count(number),
        size if size >= 9.995 => format!("{number:.1}"),
        size if size >= 0.9995 => format!("{number:.2}"),
        size if size >= 0.000_999_5 => format!("{number:.3}"),
        _ => format!("{number:.1e}"),
    }
}

/// `380 µs`, `5.20 ms`, `1.20 s`.
pub fn micros(micros: f64) -> String {
    match micros {
        _ if micros < 999.5 => format!("{} µs", short(micros)),
        _ if micros < 999_500.0 => format!("{} ms", short(micros / 1e3)),
        _ => format!("{} s", short(micros / 1e6)),
    }
}

/// `512 B`, `4 KiB`, `1.5 MiB`.
pub fn bytes(bytes: f64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let (mut size, mut unit) = (bytes, 0);
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        (size, unit) = (size / 1024.0, unit + 1);
    }
    let text = if size.fract() == 0.0 { count(size) } else { short(size) };
    format!("{text} {}", UNITS[unit])
}

/// Ours by theirs: `2.68×`; a dash where there is nothing to compare.
pub fn ratio(ours: f64, theirs: f64) -> String {
    let ratio = ours / theirs;
    if ratio.is_finite() && ours > 0.0 { format!("{}×", short(ratio)) } else { "–".to_owned() }
}

/// A round number without the zeros that say nothing: `10.0 ms` becomes `10 ms`.
pub fn trimmed(text: &str) -> String {
    let (number, unit) = text.find(' ').map_or((text, ""), |at| text.split_at(at));
    let is_fraction = number.contains('.') && !number.contains('e');
    let number =
        if is_fraction { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    format!("{number}{unit}")
}

/// A round number in words: `10 thousand`.
pub fn round(number: u64) -> String {
    match number {
        1_000_000.. if number.is_multiple_of(1_000_000) => {
            format!("{} million", number / 1_000_000)
        }
        1_000.. if number.is_multiple_of(1_000) => format!("{} thousand", number / 1_000),
        _ => count(number as f64),
    }
}

/// The same for a narrow place: `10 k`, `5 M`.
pub fn brief(number: u64) -> String {
    round(number).replace("thousand", "k").replace("million", "M")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_numbers_are_short() {
        assert_eq!(trimmed("10.0 ms"), "10 ms");
        assert_eq!(trimmed("0.200"), "0.2");
        assert_eq!(trimmed("200,000"), "200,000");
        assert_eq!(trimmed("1.0e-4"), "1.0e-4");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(1_234_567.0), "1,234,567");
        assert_eq!(count(999.0), "999");
        assert_eq!(count(-1000.0), "-1,000");
        assert_eq!(short(0.0), "0");
        assert_eq!(
            (short(0.0123), short(4.564), short(78.91)),
            ("0.012".into(), "4.56".into(), "78.9".into())
        );
        assert_eq!((micros(380.0), micros(5200.0)), ("380 µs".into(), "5.20 ms".into()));
        assert_eq!((bytes(4096.0), bytes(1536.0)), ("4 KiB".into(), "1.50 KiB".into()));
        assert_eq!((ratio(2.0, 4.0), ratio(1.0, 0.0)), ("0.500×".into(), "–".into()));
        assert_eq!((round(10_000), round(5_000_000)), ("10 thousand".into(), "5 million".into()));
    }
}
