//! Numbers with their units, as people read them: three digits, and the unit that fits.

/// `1,234,567`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `0.123`, `1.23`, `12.3`, `123`, `1,234`.
pub fn decimal(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 99.95 {
        let sign = if value < 0.0 { "-" } else { "" };
        return format!("{sign}{}", count(magnitude.round() as u64));
    }
    if magnitude == 0.0 {
        return "0".to_owned();
    }
    let decimals = match magnitude {
        _ if magnitude >= 9.995 => 1,
        _ if magnitude >= 0.9995 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

/// `87 µs`, `1.23 ms`, `2.50 s`.
pub fn duration_us(us: f64) -> String {
    match us {
        _ if us >= 999_500.0 => format!("{} s", decimal(us / 1e6)),
        _ if us >= 999.5 => format!("{} ms", decimal(us / 1e3)),
        _ => format!("{} µs", decimal(us)),
    }
}

/// `87 ms` of a value that may be missing.
pub fn duration_us_or_dash(us: Option<u64>) -> String {
    us.map_or_else(|| "-".to_owned(), |us| duration_us(us as f64))
}

/// `12.3 million`, for sentences; smaller ones as they are.
pub fn large(value: f64) -> String {
    match value {
        _ if value >= 999.5e6 => format!("{} billion", decimal(value / 1e9)),
        _ if value >= 999.5e3 => format!("{} million", decimal(value / 1e6)),
        _ => decimal(value),
    }
}

/// `12.3 M`, for axes and columns.
pub fn short(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude >= 999.5e6 => format!("{} G", decimal(value / 1e9)),
        magnitude if magnitude >= 999.5e3 => format!("{} M", decimal(value / 1e6)),
        magnitude if magnitude >= 9_999.5 => format!("{} k", decimal(value / 1e3)),
        _ => decimal(value),
    }
}

/// `100 B`, `3.65 KiB`, `24.0 GiB`.
pub fn bytes(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "KiB", "MiB"] {
        if value.abs() < 1_023.5 {
            return format!("{} {unit}", decimal(value));
        }
        value /= 1_024.0;
    }
    format!("{} GiB", decimal(value))
}

/// `97 %`, and `0.04 %` where that says more.
pub fn share(share: f64) -> String {
    let percent = share * 100.0;
    match percent.abs() {
        magnitude if magnitude >= 9.95 || magnitude == 0.0 => format!("{percent:.0} %"),
        magnitude if magnitude >= 0.995 => format!("{percent:.1} %"),
        _ => format!("{percent:.2} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_keep_three_digits() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(decimal(0.1234), "0.123");
        assert_eq!(decimal(9.996), "10.0");
        assert_eq!(decimal(99.96), "100");
        assert_eq!(decimal(-1_234.6), "-1,235");
        assert_eq!(duration_us(87.0), "87.0 µs");
        assert_eq!(duration_us(999.6), "1.00 ms");
        assert_eq!(duration_us(1_500_000.0), "1.50 s");
        assert_eq!(large(12_345_678.0), "12.3 million");
        assert_eq!(short(12_000.0), "12.0 k");
        assert_eq!(bytes(100.4), "100 B");
        assert_eq!(bytes(1_023.9), "1.00 KiB");
        assert_eq!(bytes((24_u64 << 30) as f64), "24.0 GiB");
        assert_eq!(share(0.97), "97 %");
        assert_eq!(share(0.0004), "0.04 %");
    }
}
