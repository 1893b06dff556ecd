//! Where the parser is stricter than the grammar: the closed list of SPEC.md §2.
//!
//! Each rule is written anew here, on lines that the grammar derives.

use std::collections::HashSet;

/// A rule beyond the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A name occurs once.
    NameTwice,
    /// At most 40 parameters.
    TooManyParameters,
    /// A value has a length limit.
    ValueTooLong,
    /// `%XX` only where it must stand.
    NeedlessPercent,
    /// No padding, no spare bits, a length that octets can have.
    Slot,
    /// A label does not end in "-".
    LabelEnd,
    /// Local part ≤ 64 octets, domain ≤ 253.
    AddressTooLong,
    /// A local part is UTF-8 as RFC 8265 leaves it.
    LocalNotPrepared,
    /// The text of a reply is UTF-8.
    ReplyText,
}

impl Rule {
    /// All of them.
    pub(crate) const ALL: [Self; 9] = [
        Self::NameTwice,
        Self::TooManyParameters,
        Self::ValueTooLong,
        Self::NeedlessPercent,
        Self::Slot,
        Self::LabelEnd,
        Self::AddressTooLong,
        Self::LocalNotPrepared,
        Self::ReplyText,
    ];
}

/// The rule that `line`, which the grammar derives, breaks.
pub(crate) fn reason(line: &[u8]) -> Option<Rule> {
    let is_reply = matches!(line[0], b'2'..=b'5');
    if is_reply { reply(line) } else { command(std::str::from_utf8(line).unwrap()) }
}

fn reply(line: &[u8]) -> Option<Rule> {
    let mut rest = &line[4..];
    let mut parameters = Vec::new();
    // Values may hold colons, but the text begins with one.
    while rest[0] != b':' {
        let end = rest.iter().position(|&octet| octet == b' ').unwrap();
        parameters.push(std::str::from_utf8(&rest[..end]).unwrap());
        rest = &rest[end + 1..];
    }
    if std::str::from_utf8(rest).is_err() {
        return Some(Rule::ReplyText);
    }
    check_parameters(&parameters, 65_536)
}

fn command(line: &str) -> Option<Rule> {
    let mut words = line.split(' ').skip(1).peekable();
    for keyword in ["TO", "FROM"] {
        if words.next_if_eq(&keyword).is_some() {
            let rule = address(words.next().unwrap());
            if rule.is_some() {
                return rule;
            }
        }
    }
    let mut parameters = Vec::new();
    while let Some(word) = words.next_if(|word| word.contains('=')) {
        parameters.push(word);
    }
    if let Some(rule) = check_parameters(&parameters, 2_048) {
        return Some(rule);
    }
    words.filter(|word| *word != "-").any(|word| !is_good_slot(word)).then_some(Rule::Slot)
}

fn check_parameters(parameters: &[&str], value_max: usize) -> Option<Rule> {
    let mut names = HashSet::new();
    for parameter in parameters {
        let (name, value) = parameter.split_once('=').unwrap();
        let max = if matches!(name, "PSIG" | "RSIG") { 4_608 } else { value_max };
        if value.len() > max {
            return Some(Rule::ValueTooLong);
        }
        let stands =
            |octet: u8| octet.is_ascii_alphanumeric() || b"-._~!*()+,;:@/?".contains(&octet);
        if percents(value).any(stands) {
            return Some(Rule::NeedlessPercent);
        }
        if !names.insert(name) {
            return Some(Rule::NameTwice);
        }
    }
    (parameters.len() > 40).then_some(Rule::TooManyParameters)
}

/// The octets that `%XX` stands for.
fn percents(text: &str) -> impl Iterator<Item = u8> + '_ {
    text.split('%').skip(1).map(|piece| u8::from_str_radix(&piece[..2], 16).unwrap())
}

fn address(text: &str) -> Option<Rule> {
    let account = text.split('/').next().unwrap();
    let (local, domain) = match account.split_once('@') {
        Some((local, domain)) => (Some(local), domain),
        None => (None, account),
    };
    if domain.split('.').any(|label| label.ends_with('-')) {
        return Some(Rule::LabelEnd);
    }
    if domain.len() > 253 || local.is_some_and(|local| local.len() > 64) {
        return Some(Rule::AddressTooLong);
    }
    local.and_then(check_local)
}

fn check_local(local: &str) -> Option<Rule> {
    let never = |octet: u8| {
        octet <= 0x20
            || matches!(octet, b'"' | b'/' | b'@' | 0x7F)
            || octet.is_ascii_lowercase()
            || octet.is_ascii_digit()
            || b"._-+".contains(&octet)
    };
    if percents(local).any(never) {
        return Some(Rule::NeedlessPercent);
    }
    let mut octets = Vec::new();
    let mut pieces = local.split('%');
    octets.extend_from_slice(pieces.next().unwrap().as_bytes());
    for piece in pieces {
        octets.push(u8::from_str_radix(&piece[..2], 16).unwrap());
        octets.extend_from_slice(&piece.as_bytes()[2..]);
    }
    let is_prepared = String::from_utf8(octets).is_ok_and(|name| is_prepared(&name));
    (!is_prepared).then_some(Rule::LocalNotPrepared)
}

/// The profile is the crate's; what it does is tested where addresses are.
fn is_prepared(name: &str) -> bool {
    use precis_profiles::precis_core::profile::PrecisFastInvocation as _;
    precis_profiles::UsernameCaseMapped::enforce(name).is_ok_and(|enforced| enforced == name)
}

fn is_good_slot(word: &str) -> bool {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let last = ALPHABET.find(word.chars().last().unwrap()).unwrap();
    match word.len() % 4 {
        0 => true,
        2 => last.is_multiple_of(16),
        3 => last.is_multiple_of(4),
        _ => false,
    }
}
