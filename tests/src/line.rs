//! Parts of a line, by its words.

/// The value of the word that begins with `name`, which ends with its `=`.
#[must_use]
pub fn word<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(' ').find_map(|word| word.strip_prefix(name))
}

/// The line without its hop parameters, which differ on each link.
#[must_use]
pub fn bare(line: &str) -> String {
    line.split(' ').filter(|word| !word.starts_with("H-")).collect::<Vec<_>>().join(" ")
}
