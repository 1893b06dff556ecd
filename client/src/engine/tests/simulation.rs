//! Seeded disorder: links drop, programs die, answers are lost, the relay puts off, repeats and
//! reorders. Whatever happens, every text arrives once, and in its sender's order unless the relay
//! reordered.

use crate::random::{Random as _, Seeded};

use super::world::World;
use crate::engine::Event;
use crate::limits;

struct Dice(Seeded);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        let mut octets = [0; 8];
        self.0.fill(&mut octets).unwrap();
        u64::from_be_bytes(octets) % sides
    }
}

/// A run of `steps` random steps among `people`.
#[expect(clippy::too_many_lines, reason = "one conversation, step by step")]
fn run(seed: u64, people: usize, steps: u32, reorders: bool) {
    println!("seed {seed}");
    let mut dice = Dice(Seeded::new(seed));
    let mut world = World::new();
    world.relay.policy.refresh_messages = 7;
    for local in ["alice", "bob", "carol"].iter().take(people) {
        world.enrol(local, World::quick());
    }
    let mut said: Vec<Vec<String>> = vec![Vec::new(); people * people];
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
                world.say(index, to, &text);
                // A program that dies before it wrote the text down has not sent it.
                world.drive(index);
                said[index * people + to].push(text);
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
            let mut expected = said[from * people + to].clone();
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

#[test]
#[ignore = "fails: a text is lost in some seeds, in the relay double or the engine; open"]
fn two_people_in_disorder() {
    for seed in 0..12 {
        run(seed, 2, 400, false);
    }
}

#[test]
fn three_people_in_disorder() {
    for seed in 100..106 {
        run(seed, 3, 500, false);
    }
}

#[test]
#[ignore = "fails: a text is lost in some seeds, in the relay double or the engine; open"]
fn a_relay_that_reorders() {
    for seed in 200..208 {
        run(seed, 2, 400, true);
    }
}
