//! Slots with generations: small numbers that name things, and notice when the thing is gone.

use super::port::Tag;

/// Names an occupied slot; stale once the slot was freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlotId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

struct Place<T> {
    generation: u32,
    content: Option<T>,
}

/// A growing table of `T`. The owner bounds what it inserts.
pub(crate) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Slab<T> {
        Slab { places: Vec::new(), free: Vec::new() }
    }

    /// Puts `content` into a free slot.
    pub(crate) fn insert(&mut self, content: T) -> SlotId {
        self.insert_with(|_| content)
    }

    /// Puts something that knows its own name into a free slot.
    pub(crate) fn insert_with(&mut self, content: impl FnOnce(SlotId) -> T) -> SlotId {
        if let Some(index) = self.free.pop()
            && let Some(place) = self.places.get_mut(index as usize)
        {
            let id = SlotId { index, generation: place.generation };
            place.content = Some(content(id));
            return id;
        }
        let index = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        let id = SlotId { index, generation: 1 };
        self.places.push(Place { generation: 1, content: Some(content(id)) });
        id
    }

    pub(crate) fn contains(&self, id: SlotId) -> bool {
        self.get(id).is_some()
    }

    pub(crate) fn get(&self, id: SlotId) -> Option<&T> {
        let place = self.places.get(id.index as usize)?;
        if place.generation == id.generation { place.content.as_ref() } else { None }
    }

    pub(crate) fn get_mut(&mut self, id: SlotId) -> Option<&mut T> {
        let place = self.places.get_mut(id.index as usize)?;
        if place.generation == id.generation { place.content.as_mut() } else { None }
    }

    /// Frees a slot; names of its content are stale from now on.
    pub(crate) fn remove(&mut self, id: SlotId) -> Option<T> {
        let place = self.places.get_mut(id.index as usize)?;
        if place.generation != id.generation {
            return None;
        }
        let content = place.content.take()?;
        place.generation = match (place.generation + 1) & Tag::GENERATION_MASK {
            0 => 1,
            next => next,
        };
        self.free.push(id.index);
        Some(content)
    }

    /// The names of all occupied slots.
    pub(crate) fn occupied(&self) -> Vec<SlotId> {
        let named = self.places.iter().enumerate().filter(|(_, place)| place.content.is_some());
        named
            .map(|(index, place)| SlotId {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                generation: place.generation,
            })
            .collect()
    }

    /// Occupied slots.
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_of_freed_slots_are_stale() {
        let mut slab = Slab::new();
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!(second.index, first.index);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert!(slab.contains(second));
        assert_eq!(slab.len(), 1);
        assert_eq!(slab.occupied(), vec![second]);
    }

    #[test]
    fn generations_wrap_without_zero() {
        let mut slab = Slab::new();
        let id = slab.insert(0);
        slab.places.first_mut().unwrap().generation = Tag::GENERATION_MASK;
        let last = SlotId { generation: Tag::GENERATION_MASK, ..id };
        slab.remove(last).unwrap();
        assert_eq!(slab.insert(1).generation, 1);
    }
}
