//! The queue among simulated clients and workers that crash, fall silent, come back, and repeat
//! themselves. Every choice comes from a seed, so whatever goes wrong goes wrong again.

mod chance;
mod clients;
mod faults;
mod world;

use std::hash::Hasher as _;

use world::World;

/// A promise that a queue under test breaks on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::queue) enum Broken {
    ForgetsLostActions,
    IgnoresRoom,
    ServesInOrder,
    AnswersTwice,
    FoldsNothing,
}

const STEPS: usize = 2_000;
/// Seeds that are run unless [`SEEDS_VARIABLE`] says how many.
const SEEDS: u64 = 100;
const SEEDS_VARIABLE: &str = "CASTWORK_SIMULATION_SEEDS";
const WORKERS: u64 = 4;
const ACTIONS: u64 = 8;
/// Rounds, each a second long, in which everything must come to its end once nothing fails.
const ROUNDS_MAX: usize = 300;

/// Runs one seed to its end; returns a hash of all effects, or the promise that was broken.
fn simulate(seed: u64, broken: Option<Broken>) -> Result<u64, String> {
    let mut world = World::new(seed, broken);
    for step in 0..STEPS {
        world.step().map_err(|broken| format!("seed {seed}, step {step}: {broken}"))?;
    }
    world.come_to_an_end().map_err(|broken| format!("seed {seed}, at the end: {broken}"))?;
    Ok(world.trace.finish())
}

/// The first seed that shows a promise broken.
fn first_broken(broken: Option<Broken>, seeds: u64) -> Option<String> {
    (0..seeds).find_map(|seed| simulate(seed, broken).err())
}

#[test]
fn every_promise_is_kept_whatever_fails() {
    let seeds = std::env::var(SEEDS_VARIABLE).map_or(SEEDS, |text| text.parse().expect("a number of seeds"));
    assert_eq!(first_broken(None, seeds), None);
}

#[test]
fn the_same_seed_has_the_same_effects() {
    assert_eq!(simulate(7, None), simulate(7, None));
    assert_ne!(simulate(7, None), simulate(8, None));
}

#[test]
fn a_queue_that_breaks_a_promise_is_caught() {
    for broken in
        [Broken::ForgetsLostActions, Broken::AnswersTwice, Broken::FoldsNothing, Broken::IgnoresRoom]
    {
        assert!(first_broken(Some(broken), 100).is_some(), "{broken:?} was not noticed");
    }
}
