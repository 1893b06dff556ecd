//! The S-box circuits: proven against FIPS 46-3 for all inputs, and the generated file is current.
//!
//! `circuits/des-sbox.txt` is the data; this test generates `src/backend/des/sbox.rs` from it. With
//! `CIPHERIM_UPDATE=1` in the environment it writes the file, else it compares.
//!
//! Format, one section per S-box: `box N`; `NODE GATE A B` with the gates `and`, `or`, `xor`,
//! `andn` (A and not B), nodes 0 to 5 the inputs (0 the most significant); `out K NODE INVERTED`.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::fmt::Write as _;

#[path = "../src/backend/des/table.rs"]
#[allow(dead_code, unreachable_pub)]
mod table;

#[derive(Clone, Copy)]
enum Gate {
    And,
    AndNot,
    Or,
    Xor,
}

struct Circuit {
    gates: Vec<(Gate, usize, usize)>,
    outputs: [(usize, bool); 4],
}

fn parse() -> Vec<Circuit> {
    let text = include_str!("../circuits/des-sbox.txt");
    let mut circuits: Vec<Circuit> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |i: usize| words[i].parse::<usize>().unwrap();
        if words[0] == "box" {
            assert_eq!(number(1), circuits.len() + 1);
            circuits.push(Circuit { gates: Vec::new(), outputs: [(0, false); 4] });
            continue;
        }
        let circuit = circuits.last_mut().unwrap();
        if words[0] == "out" {
            circuit.outputs[number(1)] = (number(2), number(3) == 1);
            continue;
        }
        let node = circuit.gates.len() + 6;
        assert_eq!(number(0), node);
        assert!(number(2) < node && number(3) < node, "a gate reads what comes later: {line}");
        let gate = match words[1] {
            "and" => Gate::And,
            "andn" => Gate::AndNot,
            "or" => Gate::Or,
            "xor" => Gate::Xor,
            other => panic!("unknown gate {other}"),
        };
        circuit.gates.push((gate, number(2), number(3)));
    }
    circuits
}

impl Circuit {
    fn evaluate(&self, six: usize) -> u8 {
        let mut nodes: Vec<bool> = (0..6).map(|i| (six >> (5 - i)) & 1 == 1).collect();
        for (gate, a, b) in &self.gates {
            let (a, b) = (nodes[*a], nodes[*b]);
            nodes.push(match gate {
                Gate::And => a & b,
                Gate::AndNot => a & !b,
                Gate::Or => a | b,
                Gate::Xor => a ^ b,
            });
        }
        self.outputs
            .iter()
            .fold(0, |sum, (node, inverted)| sum << 1 | u8::from(nodes[*node] ^ inverted))
    }
}

#[test]
fn every_circuit_is_its_s_box() {
    let circuits = parse();
    assert_eq!(circuits.len(), 8);
    for (number, circuit) in circuits.iter().enumerate() {
        for six in 0..64 {
            let (ours, theirs) = (circuit.evaluate(six), table::substitute(number, six));
            assert_eq!(ours, theirs, "S{} at {six}", number + 1);
        }
    }
}

#[test]
fn the_generated_file_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/backend/des/sbox.rs");
    let wanted = generate(&parse());
    if std::env::var_os("CIPHERIM_UPDATE").is_some() {
        std::fs::write(path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap();
    assert!(found == wanted, "run this test with CIPHERIM_UPDATE=1 and commit the result");
}

fn generate(circuits: &[Circuit]) -> String {
    let gates: Vec<usize> = circuits.iter().map(|circuit| circuit.gates.len()).collect();
    let mut out = format!(
        "//! The S-boxes of DES as circuits of two-input gates, and one round made of them.\n\
         //!\n\
         //! Generated from `circuits/des-sbox.txt` by `tests/circuit.rs`, which also proves the\n\
         //! circuits; do not edit. Gates: {gates:?}, {} in all.\n\n\
         use super::bitslice::Bits;\n\n\
         /// Outputs that a circuit gives inverted, by S-box.\n\
         pub(super) const INVERTED: [[bool; 4]; 8] = [\n",
        gates.iter().sum::<usize>()
    );
    for circuit in circuits {
        let [a, b, c, d] = circuit.outputs.map(|(_, inverted)| inverted);
        writeln!(out, "    [{a}, {b}, {c}, {d}],").unwrap();
    }
    out.push_str("];\n\n");
    generate_round(&mut out, circuits.len());
    for (number, circuit) in circuits.iter().enumerate() {
        generate_box(&mut out, number, circuit);
    }
    out
}

fn generate_round(out: &mut String, boxes: usize) {
    out.push_str(
        "/// One round: `l` becomes `l` xor f(`r`), up to the inversions in [`INVERTED`]. `schedule`\n\
         /// names the plane of `key`, times 32, that meets each S-box input.\n\
         #[inline(always)]\n\
         #[expect(clippy::too_many_lines, reason = \"generated: eight boxes in a row\")]\n\
         pub(crate) fn round<B: Bits>(\n    e: B,\n    l: &mut [B::W; 32],\n    r: &[B::W; 32],\n    \
         key: &[B::W; 128],\n    schedule: &[u16; 48],\n) {\n    \
         let k = |slot: u16| key[(e.number(slot) >> 5) & 127];\n",
    );
    for number in 0..boxes {
        writeln!(out, "    let x = [").unwrap();
        for input in 0..6 {
            let bit = (number * 4 + input + 31) % 32;
            let slot = number * 6 + input;
            writeln!(out, "        e.xor(r[{bit}], k(schedule[{slot}])),").unwrap();
        }
        writeln!(out, "    ];\n    let y = s{}(e, x);", number + 1).unwrap();
        for output in 0..4 {
            let source = (number * 4 + output + 1) as u8;
            let place = table::P.iter().position(|p| *p == source).unwrap();
            writeln!(out, "    l[{place}] = e.xor(l[{place}], y[{output}]);").unwrap();
        }
    }
    out.push_str("}\n");
}

fn generate_box(out: &mut String, number: usize, circuit: &Circuit) {
    write!(
        out,
        "\n#[inline(always)]\nfn s{}<B: Bits>(e: B, x: [B::W; 6]) -> [B::W; 4] {{\n    \
         let [n0, n1, n2, n3, n4, n5] = x;\n",
        number + 1
    )
    .unwrap();
    for (i, (gate, a, b)) in circuit.gates.iter().enumerate() {
        let name = match gate {
            Gate::And => "and",
            Gate::AndNot => "and_not",
            Gate::Or => "or",
            Gate::Xor => "xor",
        };
        writeln!(out, "    let n{} = e.{name}(n{a}, n{b});", i + 6).unwrap();
    }
    let [a, b, c, d] = circuit.outputs.map(|(node, _)| node);
    writeln!(out, "    [n{a}, n{b}, n{c}, n{d}]\n}}").unwrap();
}
