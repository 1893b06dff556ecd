//! Seeded disorder: links drop, programs die, answers are lost, the relay puts off, repeats and
//! reorders. Whatever happens, every text arrives once, and in its sender's order unless the relay
//! reordered.

use crate::random::{Random as _, Seeded};

use super::world::World;
use crate::engine::{Event, Notice};
use crate::limits;

struct Dice(Seeded);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        let mut octets = [0; 8];
        self.0.fill(&mut octets).unwrap();
        u64::from_be_bytes(octets) % sides
    }
}

/// What happens beside cuts, deaths, lost answers and repeats.
#[derive(Clone, Copy, Default)]
struct Disorder {
    /// The relay queues sealed lines in another order.
    reorders: bool,
    /// Devices and the relay refuse offers for good.
    refuses: bool,
}

/// A run of `steps` random steps among `people`.
#[expect(clippy::too_many_lines, reason = "one conversation, step by step")]
fn run(seed: u64, people: usize, steps: u32, disorder: Disorder) {
    println!("seed {seed}");
    let Disorder { reorders, refuses } = disorder;
    let mut dice = Dice(Seeded::new(seed));
    let mut world = World::new();
    world.relay.policy.refresh_messages = 7;
    for local in ["alice", "bob", "carol"].iter().take(people) {
        world.enrol(local, World::quick());
    }
    let mut said: Vec<Vec<(String, String)>> = vec![Vec::new(); people * people];
    for step in 0..steps {
        let index = dice.roll(people as u64) as usize;
        match dice.roll(40) {
            0 | 1 => world.cut(index),
            2 => {
                world.kill(index);
                world.open(index);
            }
            3 | 4 => world.connect(index),
            5 => {
                let command = [100, 700, 702, 612, 610, 101][dice.roll(6) as usize];
                let reply = [450, 451, 0][dice.roll(3) as usize];
                world.refuse(command, reply, 1, dice.roll(2) == 0);
            }
            6 => world.jump(dice.roll(5_000)),
            7 if reorders => world.relay.reorders = dice.roll(2) == 0,
            8 => world.relay.repeat(&world.stations[index].name.clone()),
            9..=12 => {
                let to = (index + 1 + dice.roll(people as u64 - 1) as usize) % people;
                let text = format!("{step} from {index} to {to}");
                let mid = world.say(index, to, &text);
                // A program that dies before it wrote the text down has not sent it.
                world.drive(index);
                said[index * people + to].push((mid, text));
            }
            13 if refuses => world.refuse_offers(index, 1),
            14 if refuses => {
                let command = [700, 702][dice.roll(2) as usize];
                let reply = [552, 555][dice.roll(2) as usize];
                world.refuse(command, reply, 1, false);
            }
            _ => {
                world.drive(index);
                for _ in 0..dice.roll(4) {
                    world.carry(index);
                }
            }
        }
        world.sort_out();
    }
    world.relay.refusals.clear();
    world.relay.reorders = false;
    world.relay.release();
    (0..people).for_each(|index| world.refuse_offers(index, 0));
    for _ in 0..6 {
        for index in 0..people {
            world.connect(index);
        }
        world.settle();
        world.pass(2 * limits::MINUTE_MS);
    }
    for to in 0..people {
        let texts = world.stations[to].texts();
        for from in 0..people {
            let mut arrived: Vec<String> = texts
                .iter()
                .filter(|text| text.ends_with(&format!("from {from} to {to}")))
                .cloned()
                .collect();
            // What its sender was told will not arrive does not.
            let failed = |mid: &str| {
                let mut notices = world.stations[from].screen.values();
                notices.any(|one| matches!(one, Notice::Failed { mid: other, .. } if other == mid))
            };
            let said = &said[from * people + to];
            let kept = said.iter().filter(|(mid, _)| !failed(mid));
            let mut expected: Vec<String> = kept.map(|(_, text)| text.clone()).collect();
            assert!(refuses || expected.len() == said.len(), "seed {seed}: nothing fails");
            if reorders {
                arrived.sort();
                expected.sort();
            }
            let station = &world.stations[to];
            let lost: Vec<&Event> = station
                .events
                .iter()
                .filter(|event| matches!(event, Event::Unopened { .. }))
                .collect();
            assert_eq!(arrived, expected, "seed {seed}: from {from} to {to}: {lost:?}");
        }
        let station = &world.stations[to];
        let bad = station
            .events
            .iter()
            .find(|event| matches!(event, Event::Tampering { .. } | Event::Strange { .. }));
        assert_eq!(bad, None, "seed {seed}");
    }
}

/// Runs `count` seeds from `first` on, or as many as the variable `CIM_SEEDS` says, and names all
/// that fail.
fn run_seeds(first: u64, count: u64, people: usize, steps: u32, disorder: Disorder) {
    let count = std::env::var("CIM_SEEDS").map_or(count, |text| text.parse().unwrap());
    let first = std::env::var("CIM_FIRST").map_or(first, |text| text.parse().unwrap());
    let fails =
        |seed: &u64| std::panic::catch_unwind(|| run(*seed, people, steps, disorder)).is_err();
    let failed: Vec<u64> = (first..first + count).filter(fails).collect();
    assert!(failed.is_empty(), "{} of {count} seeds fail: {failed:?}", failed.len());
}

#[test]
fn two_people_in_disorder() {
    run_seeds(0, 12, 2, 400, Disorder::default());
}

#[test]
fn three_people_in_disorder() {
    run_seeds(100, 6, 3, 500, Disorder::default());
}

#[test]
fn a_relay_that_reorders() {
    run_seeds(200, 8, 2, 400, Disorder { reorders: true, ..Disorder::default() });
}

#[test]
fn sessions_that_are_refused() {
    run_seeds(300, 8, 2, 400, Disorder { refuses: true, ..Disorder::default() });
}
