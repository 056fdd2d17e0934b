//! How is a text written: bare, quoted, or as a block? And does YAML 1.1 read it as something else?

/// The ways to write a scalar that Go's library chooses from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

/// The style that is asked for, before the characters have their say ([`allowed`]).
pub(super) fn style(text: &str) -> Style {
    if text.contains('\n') {
        Style::Literal
    } else if reads_as_text(text) && !is_base_60(text) {
        Style::Plain
    } else {
        Style::Double
    }
}

/// The style that the characters of the text permit, from the wanted one downwards.
pub(super) fn allowed(text: &str, wanted: Style, is_key: bool) -> Style {
    let traits = Traits::of(text);
    let mut style = wanted;
    if is_key && traits.breaks {
        style = Style::Double;
    }
    if style == Style::Plain && (!traits.plain || (text.is_empty() && is_key)) {
        style = Style::Single;
    }
    if style == Style::Single && !traits.single_quoted {
        style = Style::Double;
    }
    if style == Style::Literal && (!traits.block || is_key) {
        style = Style::Double;
    }
    style
}

pub(super) fn has_breaks(text: &str) -> bool {
    text.contains(is_break)
}

pub(super) fn is_break(c: char) -> bool {
    matches!(c, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

pub(super) fn needs_escape(c: char) -> bool {
    !is_printable(c) || is_break(c) || c == '"' || c == '\\'
}

/// The character inside double quotes.
pub(super) fn escape(c: char) -> String {
    let short = match c {
        '\0' => "\\0",
        '\u{7}' => "\\a",
        '\u{8}' => "\\b",
        '\t' => "\\t",
        '\n' => "\\n",
        '\u{b}' => "\\v",
        '\u{c}' => "\\f",
        '\r' => "\\r",
        '\u{1b}' => "\\e",
        '"' => "\\\"",
        '\\' => "\\\\",
        '\u{85}' => "\\N",
        '\u{a0}' => "\\_",
        '\u{2028}' => "\\L",
        '\u{2029}' => "\\P",
        _ => {
            let code = u32::from(c);
            return match code {
                0..=0xff => format!("\\x{code:02X}"),
                0x100..=0xffff => format!("\\u{code:04X}"),
                _ => format!("\\U{code:08X}"),
            };
        }
    };
    short.to_owned()
}

/// What goyaml.v2 takes as printable: no tab, nothing above the basic plane.
fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}')
        && c != '\u{feff}'
}

struct Traits {
    breaks: bool,
    plain: bool,
    single_quoted: bool,
    block: bool,
}

impl Traits {
    fn of(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let (Some(&first), Some(&last)) = (chars.first(), chars.last()) else {
            return Self { breaks: false, plain: true, single_quoted: true, block: false };
        };
        let pairs = || chars.iter().zip(&chars[1..]);
        let breaks = chars.iter().any(|&c| is_break(c));
        let break_then_space = pairs().any(|(&a, &b)| is_break(a) && b == ' ');
        let space_then_break = pairs().any(|(&a, &b)| a == ' ' && is_break(b));
        let special = space_then_break || chars.iter().any(|&c| !is_printable(c));
        let padded = [first, last].iter().any(|&c| c == ' ' || is_break(c));
        let plain = !padded && !breaks && !special && !has_indicator(&chars);
        Self {
            breaks,
            plain,
            single_quoted: !break_then_space && !special,
            block: last != ' ' && !special,
        }
    }
}

/// Whether a character sequence stands where YAML would take it as syntax.
fn has_indicator(chars: &[char]) -> bool {
    let blank_after = |at: usize| chars.get(at + 1).is_none_or(|c| matches!(c, ' ' | '\t'));
    let begins = match chars[0] {
        '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%'
        | '@' | '`' => true,
        '?' | ':' | '-' => blank_after(0),
        _ => false,
    };
    let mark = chars.starts_with(&['-', '-', '-']) || chars.starts_with(&['.', '.', '.']);
    let blank_before =
        |at: usize| matches!(chars[at - 1], ' ' | '\t' | '\0') || is_break(chars[at - 1]);
    begins
        || mark
        || (1..chars.len()).any(|at| match chars[at] {
            ':' => blank_after(at),
            '#' => blank_before(at),
            _ => false,
        })
}

/// Whether a bare text is read back as text and not as null, a boolean, a number or a time.
fn reads_as_text(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return false };
    if matches!(first, '+' | '-' | '.' | '0'..='9' | '~') || "yYnNtTfFoO".contains(first) {
        if WORDS.contains(&text) {
            return false;
        }
        return match first {
            '.' => !is_float(text),
            '+' | '-' | '0'..='9' => !is_timestamp(text) && !is_number(text),
            _ => true,
        };
    }
    true
}

/// Words that YAML 1.1 reads as a boolean, null, infinity or not-a-number.
const WORDS: &[&str] = &[
    "y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON", "n", "N", "no", "No",
    "NO", "false", "False", "FALSE", "off", "Off", "OFF", "~", "null", "Null", "NULL", ".nan",
    ".NaN", ".NAN", ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF",
];

fn is_number(text: &str) -> bool {
    let plain = text.replace('_', "");
    is_integer(&plain) || is_float(&plain)
}

/// Go's `strconv.ParseInt(…, 0, 64)` or `ParseUint`, and goyaml's own binary numbers.
fn is_integer(plain: &str) -> bool {
    let (negative, signed, digits) = match plain.as_bytes().first() {
        Some(b'-') => (true, true, &plain[1..]),
        Some(b'+') => (false, true, &plain[1..]),
        _ => (false, false, plain),
    };
    if let Some(binary) = plain.strip_prefix("0b").filter(|rest| rest.starts_with(['-', '+'])) {
        return i64::from_str_radix(binary, 2).is_ok();
    }
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, &lower[..]),
    };
    if digits.starts_with(['-', '+']) {
        return false;
    }
    match u64::from_str_radix(digits, radix) {
        Ok(number) if negative => number <= 1 << 63,
        Ok(number) => !signed || i64::try_from(number).is_ok(),
        Err(_) => false,
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?` that fits a 64-bit float.
fn is_float(plain: &str) -> bool {
    let unsigned = plain.strip_prefix(['-', '+']).unwrap_or(plain);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = !(whole.is_empty() && fraction.is_empty());
    let exponent_holds = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !digits.is_empty() && all_digits(digits)
    });
    digits
        && all_digits(whole)
        && all_digits(fraction)
        && exponent_holds
        && plain.parse::<f64>().is_ok_and(f64::is_finite)
}

/// `[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?`: the sexagesimal numbers of YAML 1.1.
fn is_base_60(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let mut parts = unsigned.split(':');
    let head = parts.next().unwrap_or_default();
    let tail: Vec<&str> = parts.collect();
    let Some((last, middle)) = tail.split_last() else { return false };
    let (last, fraction) = last.split_once('.').unwrap_or((last, ""));
    let of_digits_and_marks = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let sixtieth = |part: &str| match part.as_bytes() {
        [one] => one.is_ascii_digit(),
        [ten, one] => (b'0'..=b'5').contains(ten) && one.is_ascii_digit(),
        _ => false,
    };
    head.starts_with(|c: char| c.is_ascii_digit())
        && of_digits_and_marks(head)
        && of_digits_and_marks(fraction)
        && middle.iter().all(|part| sixtieth(part))
        && sixtieth(last)
}

/// The four forms of a time that goyaml tries, read as Go's `time.Parse` reads them.
fn is_timestamp(text: &str) -> bool {
    let mut rest = Reader(text);
    let Some(year) = rest.year() else { return false };
    let mut date = || -> Option<()> {
        let month = rest.after('-')?.number(1, 12)?;
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 => 28 + u32::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        rest.after('-')?.number(1, days)?;
        if rest.0.is_empty() {
            return Some(());
        }
        let spaced = rest.0.starts_with(' ');
        rest.after_any(&['T', 't', ' '])?.number(0, 23)?;
        rest.after(':')?.number(0, 59)?;
        rest.after(':')?.number(0, 59)?;
        rest.fraction();
        if !spaced {
            rest.zone()?;
        }
        rest.0.is_empty().then_some(())
    };
    date().is_some()
}

struct Reader<'a>(&'a str);

impl Reader<'_> {
    fn year(&mut self) -> Option<u32> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let year = self.0.get(..4).filter(|_| digits == 4)?.parse().ok()?;
        self.0 = &self.0[4..];
        Some(year)
    }

    fn after(&mut self, c: char) -> Option<&mut Self> {
        self.after_any(&[c])
    }

    fn after_any(&mut self, any: &[char]) -> Option<&mut Self> {
        self.0 = self.0.strip_prefix(any)?;
        Some(self)
    }

    /// One or two digits within the bounds.
    fn number(&mut self, from: u32, to: u32) -> Option<u32> {
        let digits = self.0.bytes().take(2).take_while(u8::is_ascii_digit).count();
        let number = self.0[..digits].parse().ok()?;
        self.0 = &self.0[digits..];
        (from..=to).contains(&number).then_some(number)
    }

    fn fraction(&mut self) {
        if let Some(rest) = self.0.strip_prefix(['.', ',']) {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits > 0 {
                self.0 = &rest[digits..];
            }
        }
    }

    fn zone(&mut self) -> Option<()> {
        if self.after('Z').is_some() {
            return Some(());
        }
        let zone = self.after_any(&['+', '-'])?;
        let (hours, minutes) = zone.0.get(..5)?.split_once(':')?;
        let two_digits = |text: &str, max: u32| {
            text.len() == 2
                && text.bytes().all(|b| b.is_ascii_digit())
                && text.parse().is_ok_and(|n: u32| n <= max)
        };
        let holds = two_digits(hours, 24) && two_digits(minutes, 60);
        zone.0 = &zone.0[5..];
        holds.then_some(())
    }
}
