//! The queue among simulated clients and workers that crash, fall silent, come back, and repeat
//! themselves. Every choice comes from a seed, so whatever goes wrong goes wrong again.

mod chance;
mod clients;
mod faults;
mod world;

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use world::World;

/// A promise that a queue under test breaks on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::queue) enum Broken {
    ForgetsLostActions,
    IgnoresRoom,
    ServesInOrder,
    AnswersTwice,
    FoldsNothing,
    HedgesAnything,
    KeepsSecondRuns,
}

const STEPS: usize = 2_000;
/// Seeds that are run unless [`SEEDS_VARIABLE`] says how many.
const SEEDS: u64 = 100;
const SEEDS_VARIABLE: &str = "CASTWORK_SIMULATION_SEEDS";
const WORKERS: u64 = 4;
const ACTIONS: u64 = 8;
/// Rounds, each a second long, in which everything must come to its end once nothing fails.
const ROUNDS_MAX: usize = 300;

/// Runs one seed to its end, or to the promise that was broken.
fn simulate(seed: u64, broken: Option<Broken>) -> Result<(), String> {
    play(World::new(seed, broken), seed).map(|_| ())
}

fn play(mut world: World, seed: u64) -> Result<World, String> {
    for step in 0..STEPS {
        world.step().map_err(|broken| format!("seed {seed}, step {step}: {broken}"))?;
    }
    world.come_to_an_end().map_err(|broken| format!("seed {seed}, at the end: {broken}"))?;
    Ok(world)
}

/// A hash of all effects of a seed.
fn effects_of(seed: u64) -> u64 {
    let mut world = World::new(seed, None);
    world.trace = Some(DefaultHasher::new());
    play(world, seed).unwrap().trace.unwrap().finish()
}

/// What one of the first seeds has shown broken, if one has; as many at a time as there are processors.
fn broken_in(broken: Option<Broken>, seeds: u64) -> Option<String> {
    let (next, found) = (AtomicU64::new(0), Mutex::new(None));
    let work = || {
        while found.lock().unwrap().is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            if let Err(promise) = simulate(seed, broken) {
                *found.lock().unwrap() = Some(promise);
            }
        }
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..processors).for_each(|_| drop(scope.spawn(work))));
    found.into_inner().unwrap()
}

#[test]
fn every_promise_is_kept_whatever_fails() {
    let seeds = std::env::var(SEEDS_VARIABLE).map_or(SEEDS, |text| text.parse().expect("a number of seeds"));
    assert_eq!(broken_in(None, seeds), None);
}

#[test]
fn the_same_seed_has_the_same_effects() {
    assert_eq!(effects_of(7), effects_of(7));
    assert_ne!(effects_of(7), effects_of(8));
}

#[test]
fn a_queue_that_breaks_a_promise_is_caught() {
    let all = [
        Broken::ForgetsLostActions,
        Broken::AnswersTwice,
        Broken::FoldsNothing,
        Broken::IgnoresRoom,
        Broken::HedgesAnything,
        Broken::KeepsSecondRuns,
    ];
    for broken in all {
        assert!(broken_in(Some(broken), 100).is_some(), "{broken:?} was not noticed");
    }
}
