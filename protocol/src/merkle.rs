//! Merkle trees of RFC 9162 §2.1: the root over a file's sealed chunks, and the leaves of
//! signed statements (SPEC.md §6, §9).
//!
//! [`Tree`] takes leaves one by one and keeps one hash for each level, so a file of any length
//! needs at most 64 hashes.

use crate::canonical::{push_lp, sha256};
use crate::command::Command;
use crate::identifier::TreeRoot;

/// The hash of a leaf: SHA-256(0x00 ‖ octets).
#[must_use]
pub fn leaf(octets: &[u8]) -> [u8; 32] {
    sha256(&[&[0], octets])
}

/// The hash of an inner node: SHA-256(0x01 ‖ left ‖ right).
#[must_use]
pub fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    sha256(&[&[1], left, right])
}

/// The leaf of a signed statement: SHA-256(0x00 ‖ TBS ‖ lp(signature)).
#[must_use]
pub fn statement_leaf(command: &Command<'_>) -> [u8; 32] {
    let mut octets = command.tbs();
    push_lp(&mut octets, &command.signature());
    leaf(&octets)
}

/// A tree that grows to the right.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Roots of the perfect subtrees, largest first, each with its number of leaves.
    subtrees: Vec<(u64, [u8; 32])>,
}

impl Tree {
    /// The empty tree.
    #[must_use]
    pub const fn new() -> Self {
        Self { subtrees: Vec::new() }
    }

    /// Adds the hash of a leaf.
    pub fn push(&mut self, leaf: [u8; 32]) {
        let (mut size, mut hash) = (1, leaf);
        while let Some((_, left)) = self.subtrees.pop_if(|(other, _)| *other == size) {
            hash = node(&left, &hash);
            size *= 2;
        }
        self.subtrees.push((size, hash));
    }

    /// The number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.subtrees.iter().map(|(size, _)| size).sum()
    }

    /// Size and root of each perfect subtree, largest first: all it takes to go on later.
    #[must_use]
    pub fn subtrees(&self) -> &[(u64, [u8; 32])] {
        &self.subtrees
    }

    /// The tree with these [`Tree::subtrees`]; `None` unless the sizes are falling powers of two.
    #[must_use]
    pub fn from_subtrees(subtrees: Vec<(u64, [u8; 32])>) -> Option<Self> {
        let are_powers = subtrees.iter().all(|(size, _)| size.is_power_of_two());
        let are_falling = subtrees.is_sorted_by(|(one, _), (next, _)| one > next);
        (are_powers && are_falling).then_some(Self { subtrees })
    }

    /// The root; of the empty tree SHA-256 of nothing.
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        let mut subtrees = self.subtrees.iter().rev();
        let Some(&(_, mut hash)) = subtrees.next() else {
            return sha256(&[]);
        };
        for (_, left) in subtrees {
            hash = node(left, &hash);
        }
        hash
    }

    /// The root as it stands in `ROOT=`.
    #[must_use]
    pub fn root_name(&self) -> TreeRoot {
        TreeRoot::from_octets(&self.root())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_from_its_subtrees() {
        let mut whole = Tree::new();
        for count in 0..70u8 {
            let mut resumed = Tree::from_subtrees(whole.subtrees().to_vec()).unwrap();
            assert_eq!(resumed.size(), u64::from(count));
            whole.push(leaf(&[count]));
            resumed.push(leaf(&[count]));
            assert_eq!(resumed.root(), whole.root());
        }
        for sizes in [vec![3], vec![1, 1], vec![1, 2], vec![0]] {
            let subtrees = sizes.iter().map(|size| (*size, [0; 32])).collect();
            assert!(Tree::from_subtrees(subtrees).is_none(), "{sizes:?}");
        }
    }

    /// RFC 9162 §2.1.1, word for word.
    fn root(leaves: &[[u8; 32]]) -> [u8; 32] {
        match leaves {
            [] => sha256(&[]),
            [one] => *one,
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                node(&root(&leaves[..split]), &root(&leaves[split..]))
            }
        }
    }

    #[test]
    fn agrees_with_the_definition() {
        let leaves: Vec<[u8; 32]> = (0..130u8).map(|n| leaf(&[n])).collect();
        let mut tree = Tree::new();
        for (count, &one) in leaves.iter().enumerate() {
            assert_eq!(tree.root(), root(&leaves[..count]), "{count}");
            assert_eq!(tree.size(), count as u64);
            tree.push(one);
        }
    }
}
