//! In which order do keys stand? goyaml's natural order: digits compare as numbers, letters come
//! after everything else.

/// The keys in that order.
pub(super) fn sorted<'a>(keys: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut sorted: Vec<&str> = Vec::new();
    // Not `sort_by`: it may panic where an order is not total, and the Go order is not for numbers
    // that overflow 64 bits.
    for key in keys {
        let at = sorted.partition_point(|placed| !less(key, placed));
        sorted.insert(at, key);
    }
    sorted
}

fn less(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(at) = (0..a.len().min(b.len())).find(|&at| a[at] != b[at]) else {
        return a.len() < b.len();
    };
    match (a[at].is_alphabetic(), b[at].is_alphabetic()) {
        (true, true) => return a[at] < b[at],
        (false, false) => {}
        (_, b_is_letter) => return b_is_letter,
    }
    // A zero after other digits is a digit of that number; at its start it weighs nothing.
    let inside_number = (a[at] == '0' || b[at] == '0')
        && a[..at].iter().rev().take_while(|c| c.is_ascii_digit()).any(|&c| c != '0');
    let (a_number, a_end) = number_at(&a, at, inside_number);
    let (b_number, b_end) = number_at(&b, at, inside_number);
    if a_number != b_number {
        return a_number < b_number;
    }
    if a_end != b_end {
        return a_end < b_end;
    }
    a[at] < b[at]
}

fn number_at(text: &[char], at: usize, inside_number: bool) -> (i64, usize) {
    let mut number = i64::from(inside_number);
    let mut end = at;
    while let Some(digit) = text.get(end).and_then(|c| c.to_digit(10)) {
        number = number.wrapping_mul(10).wrapping_add(i64::from(digit));
        end += 1;
    }
    (number, end)
}
