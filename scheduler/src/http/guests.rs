//! [`Guests`]: the connections of the HTTP port, and which of them has to make room.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// How long a connection that waits for its next request may stand still while another wants its place, and how long
/// one with a request under way.
const IDLE_MAX: Duration = Duration::from_secs(1);
const STILL_MAX: Duration = Duration::from_secs(5);

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Guests {
    all: Arc<Mutex<HashMap<u64, Arc<Guest>>>>,
    begin: Instant,
    max: usize,
    each_max: usize,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Guest {
    address: IpAddr,
    begin: Instant,
    /// When bytes last came or went, in milliseconds since the beginning.
    moved_ms: AtomicU64,
    /// Requests under way: one or none.
    busy: AtomicUsize,
    /// Cancelled when it has to make room.
    pub(super) leave: CancellationToken,
}

/// The place of a guest, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    guests: Guests,
    number: u64,
    pub(super) guest: Arc<Guest>,
}

/// Why somebody gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// All are taken, and none stands still.
    All,
    /// Those that its address may have are.
    OfAddress,
}

/// A request that is under way, until it is dropped.
pub(super) struct Busy(Arc<Guest>);

impl Guest {
    /// Bytes came or went.
    pub(super) fn moved(&self) {
        let now_ms = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.store(now_ms, Ordering::Relaxed);
    }

    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// Whether it has stood still for so long, at `now`, that it may be told to leave.
    fn may_go(&self, now: Duration) -> bool {
        let still = now.saturating_sub(Duration::from_millis(self.moved_ms.load(Ordering::Relaxed)));
        still >= if self.busy.load(Ordering::Relaxed) > 0 { STILL_MAX } else { IDLE_MAX }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Guests {
    /// With places for `max`, of which `each_max` may come from one address.
    pub(super) fn new(max: usize, each_max: usize) -> Self {
        Self { all: Arc::default(), begin: Instant::now(), max, each_max }
    }

    /// Gives a connection a place; if all are taken, that of one that stood still, the longest first.
    pub(super) fn enter(&self, address: IpAddr) -> Result<Place, Full> {
        self.enter_at(address, self.begin.elapsed())
    }

    fn enter_at(&self, address: IpAddr, now: Duration) -> Result<Place, Full> {
        let address = address.to_canonical();
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let has_enough = all.values().filter(|guest| guest.address == address).count() >= self.each_max;
        if has_enough || all.len() >= self.max {
            let may_go = |(_, guest): &(&u64, &Arc<Guest>)| {
                (!has_enough || guest.address == address) && guest.may_go(now)
            };
            let candidates = all.iter().filter(may_go);
            let stillest = candidates.min_by_key(|(_, guest)| guest.moved_ms.load(Ordering::Relaxed));
            let full = if has_enough { Full::OfAddress } else { Full::All };
            let number = stillest.map(|(number, _)| *number).ok_or(full)?;
            if let Some(guest) = all.remove(&number) {
                guest.leave.cancel();
            }
        }
        let number = loop {
            let number = rand::random();
            if !all.contains_key(&number) {
                break number;
            }
        };
        let guest = Guest {
            address,
            begin: self.begin,
            moved_ms: AtomicU64::new(u64::try_from(now.as_millis()).unwrap_or(u64::MAX)),
            busy: AtomicUsize::new(0),
            leave: CancellationToken::new(),
        };
        let guest = Arc::new(guest);
        all.insert(number, Arc::clone(&guest));
        Ok(Place { guests: self.clone(), number, guest })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.guests.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn whoever_stands_still_for_longest_makes_room() {
        let guests = Guests::new(10, 8);
        let now = Duration::from_millis;
        let places: Vec<Place> = (0..10)
            .map(|number| guests.enter_at(address(u8::from(number % 2 == 0)), now(number)).unwrap())
            .collect();
        assert_eq!(guests.enter_at(address(2), now(900)).unwrap_err(), Full::All);
        let _busy = places[0].guest.busy();
        let late = guests.enter_at(address(2), now(1005)).unwrap();
        let left: Vec<bool> = places[..3].iter().map(|place| place.guest.leave.is_cancelled()).collect();
        assert_eq!(left, [false, true, false]);
        // One with a request under way is given more time, but not for ever.
        let later = guests.enter_at(address(2), now(6000)).unwrap();
        assert!(places[0].guest.leave.is_cancelled());
        drop((late, later, places));
        assert!(guests.all.lock().unwrap().is_empty());
    }

    #[test]
    fn an_address_has_no_more_than_it_may_and_only_its_own_make_room_for_it() {
        let guests = Guests::new(10, 8);
        let other = guests.enter_at(address(2), Duration::ZERO).unwrap();
        let own: Vec<Place> =
            (0..8).map(|_| guests.enter_at(address(1), Duration::from_secs(1)).unwrap()).collect();
        assert_eq!(guests.enter_at(address(1), Duration::from_secs(1)).unwrap_err(), Full::OfAddress);
        assert!(guests.enter_at(address(3), Duration::from_secs(1)).is_ok());
        assert!(guests.enter_at(address(1), Duration::from_secs(3)).is_ok());
        assert!(!other.guest.leave.is_cancelled());
        assert_eq!(own.iter().filter(|place| place.guest.leave.is_cancelled()).count(), 1);
    }
}
