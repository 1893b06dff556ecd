//! An interpreter of ABNF (RFC 5234, with `%s` of RFC 7405): derives and recognises.
//!
//! Written for tests: it knows what the grammar of CIM/1 uses, stops on anything else, and
//! shares no code with the parser.

use std::collections::HashMap;

/// The rules of a grammar by name.
pub(crate) struct Grammar {
    rules: HashMap<String, Node>,
}

enum Node {
    /// One of several.
    Either(Vec<Node>),
    /// One after the other.
    Sequence(Vec<Node>),
    /// From the first to the second number of times.
    Repeat(usize, usize, Box<Node>),
    /// One octet of a range.
    Range(u8, u8),
    /// These octets, in any case if the flag is set.
    Text(Vec<u8>, bool),
    /// Another rule.
    Rule(String),
}

impl Grammar {
    /// Reads the rules, one a line, and adds the core rules of RFC 5234 that are used.
    pub(crate) fn parse(text: &str) -> Self {
        let core = "ALPHA = %x41-5A / %x61-7A\nDIGIT = %x30-39\nSP = %x20\nCRLF = %x0D.0A\n";
        let mut rules = HashMap::new();
        for line in core.lines().chain(text.lines()).filter(|line| !line.trim().is_empty()) {
            let (name, definition) = line.split_once('=').unwrap();
            let mut reader = Reader { text: definition.as_bytes(), position: 0 };
            let node = reader.either();
            assert_eq!(reader.position, reader.text.len(), "{line}");
            assert!(rules.insert(name.trim().to_owned(), node).is_none(), "{name}");
        }
        Self { rules }
    }

    /// Whether all of `octets` can be derived from `rule`.
    pub(crate) fn matches(&self, rule: &str, octets: &[u8]) -> bool {
        self.ends(&self.rules[rule], octets, 0).contains(&octets.len())
    }

    /// Where derivations of `node` that begin at `start` can end, each place once.
    fn ends(&self, node: &Node, octets: &[u8], start: usize) -> Vec<usize> {
        match node {
            Node::Rule(name) => self.ends(&self.rules[name], octets, start),
            Node::Either(nodes) => {
                distinct(nodes.iter().flat_map(|node| self.ends(node, octets, start)).collect())
            }
            Node::Sequence(nodes) => nodes.iter().fold(vec![start], |starts, node| {
                distinct(starts.iter().flat_map(|&s| self.ends(node, octets, s)).collect())
            }),
            Node::Repeat(least, most, node) => {
                // What was reached before leads nowhere new.
                let mut is_found = vec![false; octets.len() + 1];
                let mut found = Vec::new();
                let mut starts = vec![start];
                for count in 0..=*most {
                    if count >= *least {
                        starts.retain(|&start| !std::mem::replace(&mut is_found[start], true));
                        found.extend_from_slice(&starts);
                    }
                    if starts.is_empty() {
                        break;
                    }
                    let next = starts.iter().flat_map(|&start| self.ends(node, octets, start));
                    starts = distinct(next.collect());
                }
                found
            }
            Node::Range(first, last) => match octets.get(start) {
                Some(octet) if (first..=last).contains(&octet) => vec![start + 1],
                _ => Vec::new(),
            },
            Node::Text(text, any_case) => match octets.get(start..start + text.len()) {
                Some(found) if found == text => vec![start + text.len()],
                Some(found) if *any_case && found.eq_ignore_ascii_case(text) => {
                    vec![start + text.len()]
                }
                _ => Vec::new(),
            },
        }
    }

    /// Octets derived from `rule`.
    pub(crate) fn derive(&self, rule: &str, random: &mut Random) -> Vec<u8> {
        let mut octets = Vec::new();
        self.derive_into(&self.rules[rule], random, &mut octets);
        octets
    }

    fn derive_into(&self, node: &Node, random: &mut Random, octets: &mut Vec<u8>) {
        match node {
            Node::Rule(name) => {
                let preferred = PREFERRED.iter().find(|(rule, _)| rule == name);
                match preferred.filter(|_| random.below(5) > 0) {
                    Some((_, texts)) => {
                        octets.extend_from_slice(texts[random.below(texts.len())].as_bytes());
                    }
                    None => self.derive_into(&self.rules[name], random, octets),
                }
            }
            Node::Either(nodes) => {
                self.derive_into(&nodes[random.below(nodes.len())], random, octets);
            }
            Node::Sequence(nodes) => {
                nodes.iter().for_each(|node| self.derive_into(node, random, octets));
            }
            Node::Repeat(least, most, node) => {
                // Mostly short, now and then up to the limit.
                let room = match random.below(400) {
                    0 => 2_500,
                    1..=10 => 100,
                    11..=40 => 20,
                    _ => 5,
                };
                let count = least + random.below(room.min(most - least) + 1);
                (0..count).for_each(|_| self.derive_into(node, random, octets));
            }
            Node::Range(first, last) => {
                octets.push(first + random.below(usize::from(last - first) + 1) as u8);
            }
            Node::Text(text, _) => octets.extend_from_slice(text),
        }
    }
}

fn distinct(mut places: Vec<usize>) -> Vec<usize> {
    places.sort_unstable();
    places.dedup();
    places
}

/// What a derivation takes for a rule four times out of five: the rules of the parser beyond
/// the grammar refuse nearly everything that is derived blindly.
const PREFERRED: [(&str, &[&str]); 4] = [
    ("label", &["a", "example", "xn--bcher-kva", "9"]),
    ("pct", &["%25", "%3D", "%C3%A4", "%22", "%20"]),
    ("b64", &["AAAA", "aGVsbG8", "c2ln", "+/8", "AQ"]),
    ("local", &["alice", "a.b_c-d+e", "a%C3%A4", "x%21"]),
];

/// Reads one definition.
struct Reader<'a> {
    text: &'a [u8],
    position: usize,
}

impl Reader<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.position) == Some(&b' ') {
            self.position += 1;
        }
        self.text.get(self.position).copied()
    }

    fn take(&mut self, octet: u8) -> bool {
        let is_there = self.peek() == Some(octet);
        self.position += usize::from(is_there);
        is_there
    }

    fn either(&mut self) -> Node {
        let mut nodes = vec![self.sequence()];
        while self.take(b'/') {
            nodes.push(self.sequence());
        }
        if nodes.len() == 1 { nodes.remove(0) } else { Node::Either(nodes) }
    }

    fn sequence(&mut self) -> Node {
        let mut nodes = Vec::new();
        while self.peek().is_some_and(|octet| !matches!(octet, b'/' | b')' | b']')) {
            nodes.push(self.repeat());
        }
        Node::Sequence(nodes)
    }

    fn repeat(&mut self) -> Node {
        let least = self.number();
        if self.take(b'*') {
            let most = self.number().unwrap_or(100_000);
            return Node::Repeat(least.unwrap_or(0), most, Box::new(self.element()));
        }
        match least {
            Some(count) => Node::Repeat(count, count, Box::new(self.element())),
            None => self.element(),
        }
    }

    fn number(&mut self) -> Option<usize> {
        self.peek();
        let digits = self.word(|octet| octet.is_ascii_digit());
        digits.parse().ok()
    }

    fn word(&mut self, is_in: impl Fn(u8) -> bool) -> String {
        let rest = &self.text[self.position..];
        let length = rest.iter().position(|&octet| !is_in(octet)).unwrap_or(rest.len());
        self.position += length;
        String::from_utf8(rest[..length].to_vec()).unwrap()
    }

    fn element(&mut self) -> Node {
        match self.peek().unwrap() {
            b'(' => {
                self.position += 1;
                let node = self.either();
                assert!(self.take(b')'));
                node
            }
            b'[' => {
                self.position += 1;
                let node = self.either();
                assert!(self.take(b']'));
                Node::Repeat(0, 1, Box::new(node))
            }
            b'"' => Node::Text(self.quoted(), true),
            b'%' => {
                self.position += 2;
                match self.text[self.position - 1] {
                    b's' => Node::Text(self.quoted(), false),
                    b'x' => self.octets(),
                    other => panic!("%{}", char::from(other)),
                }
            }
            _ => Node::Rule(self.word(|octet| octet.is_ascii_alphanumeric())),
        }
    }

    fn quoted(&mut self) -> Vec<u8> {
        assert!(self.take(b'"'));
        let text = self.word(|octet| octet != b'"');
        self.position += 1;
        text.into_bytes()
    }

    /// What follows `%x`: one octet, a range, or several octets.
    fn octets(&mut self) -> Node {
        let mut hex = || {
            let digits = self.word(|octet| octet.is_ascii_hexdigit());
            u8::from_str_radix(&digits, 16).unwrap()
        };
        let first = hex();
        match self.text.get(self.position) {
            Some(b'-') => {
                self.position += 1;
                let digits = self.word(|octet| octet.is_ascii_hexdigit());
                Node::Range(first, u8::from_str_radix(&digits, 16).unwrap())
            }
            Some(b'.') => {
                self.position += 1;
                let digits = self.word(|octet| octet.is_ascii_hexdigit());
                Node::Text(vec![first, u8::from_str_radix(&digits, 16).unwrap()], false)
            }
            _ => Node::Range(first, first),
        }
    }
}

/// SplitMix64: enough for tests, and the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    /// The generator of this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// `line` with one to three small changes.
    pub(crate) fn spoil(&mut self, line: &[u8]) -> Vec<u8> {
        const PIECES: [&[u8]; 24] = [
            b" ",
            b"  ",
            b"=",
            b"-",
            b"%",
            b"%20",
            b"%41",
            b"%C3%A4",
            b"/",
            b"@",
            b".",
            b":",
            b"A=1",
            b" A=1",
            b" TO ",
            b" FROM ",
            b" - ",
            b" AAAA",
            b"A",
            b"\r",
            b"\n",
            b"\0",
            b"\xC3\xA4",
            b"\xFF",
        ];
        let mut spoilt = line.to_vec();
        for _ in 0..=self.below(3) {
            let position = self.below(spoilt.len() + 1);
            match self.below(6) {
                0 if position < spoilt.len() => {
                    spoilt.remove(position);
                }
                1 if position < spoilt.len() => spoilt[position] = self.next() as u8,
                2 if position < spoilt.len() => spoilt[position] ^= 0x20,
                3 => {
                    // Another stretch of the line once more.
                    let end = (position + 1 + self.below(12)).min(spoilt.len());
                    let piece = spoilt[position.min(end)..end].to_vec();
                    let at = self.below(spoilt.len() + 1);
                    spoilt.splice(at..at, piece);
                }
                4 => spoilt.truncate(position),
                _ => {
                    let piece = PIECES[self.below(PIECES.len())];
                    spoilt.splice(position..position, piece.iter().copied());
                }
            }
        }
        spoilt
    }
}
