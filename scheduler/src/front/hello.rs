//! [`Hello`]: who a worker says it is, checked.

use std::sync::Arc;

use castwork_cas::{ActionKey, Digest};
use castwork_proto::reapi::platform::Property;
use castwork_proto::worker;

use super::instance::{Instances, clip};
use crate::dispatch::{KindError, Kinds, Offered};
use crate::queue::{Held, LeaseId, Offer, Origin, WorkerId, id_from_hex};

/// Slots of a worker, at most.
const SLOTS_MAX: u32 = 4_096;
/// Properties of a worker, at most.
const PROPERTIES_MAX: usize = 256;
/// Bytes of a property's name and value, at most.
const PROPERTY_BYTES_MAX: usize = 4_096;
/// Bytes of a worker's name, at most.
const NAME_BYTES_MAX: usize = 256;
/// Leases that a worker may bring along beside one for each of its slots: outcomes that nobody has
/// confirmed yet. Far more than there ever are, for who is over it can't come back.
const UNCONFIRMED_MAX: usize = 65_536;

/// What a worker states when it connects, checked.
pub(super) struct Hello {
    pub(super) worker: WorkerId,
    pub(super) offer: Offer,
    /// Leases to go on with.
    pub(super) held: Vec<Held>,
    /// Leases for instances or digests that mean nothing here, as the configuration has changed.
    pub(super) void: Vec<LeaseId>,
}

/// What is wrong with a worker's hello.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HelloError {
    #[error("the first message of a worker is `Hello`")]
    NotFirst,
    #[error("`{0}` is no worker id: it has 32 lower-case hexadecimal digits")]
    WorkerId(String),
    #[error("a worker's name is at most {NAME_BYTES_MAX} bytes long")]
    Name,
    #[error("{0} slots: a worker has between 1 and {SLOTS_MAX}")]
    Slots(u32),
    #[error("a worker has at most {PROPERTIES_MAX} properties")]
    TooManyProperties,
    #[error("property `{0}` has no name, or is longer than {PROPERTY_BYTES_MAX} bytes")]
    Property(String),
    #[error("property `{0}` is not in order of name and value, or stands twice")]
    Unsorted(String),
    #[error("a worker brings at most {UNCONFIRMED_MAX} leases beside those for its slots")]
    TooManyLeases,
    #[error(transparent)]
    Amount(#[from] KindError),
    #[error("`{0}` is no lease id: it has 32 lower-case hexadecimal digits")]
    LeaseId(String),
}

impl Hello {
    pub(super) fn check(
        hello: worker::Hello,
        instances: &Instances,
        kinds: &Kinds,
    ) -> Result<Self, HelloError> {
        let id = id_from_hex(&hello.worker_id)
            .ok_or_else(|| HelloError::WorkerId(clip(&hello.worker_id).to_owned()))?;
        if hello.name.len() > NAME_BYTES_MAX {
            return Err(HelloError::Name);
        }
        if !(1..=SLOTS_MAX).contains(&hello.slots) {
            return Err(HelloError::Slots(hello.slots));
        }
        if hello.running.len() > hello.slots as usize + UNCONFIRMED_MAX {
            return Err(HelloError::TooManyLeases);
        }
        let name = if hello.name.is_empty() { hello.worker_id } else { hello.name };
        let Offered { properties, memory_bytes, others } =
            kinds.offered(check_properties(hello.properties)?)?;
        let version = clip(&hello.version).into();
        let [action_memory_bytes, action_memory_bytes_max] =
            [hello.action_memory_bytes, hello.action_memory_bytes_max]
                .map(|bytes| Some(bytes).filter(|bytes| *bytes > 0));
        let offer = Offer {
            name: name.into(),
            version,
            properties,
            slots: hello.slots,
            memory_bytes,
            action_memory_bytes,
            action_memory_bytes_max,
            others,
        };
        let mut checked = Self { worker: WorkerId(id), offer, held: Vec::new(), void: Vec::new() };
        for running in hello.running {
            let lease = lease_id(&running.lease_id)?;
            match key_of(&running, instances) {
                Some(key) => checked.held.push(Held { lease, key, origin: Arc::new(Origin::default()) }),
                None => checked.void.push(lease),
            }
        }
        Ok(checked)
    }
}

/// Reads a lease id that a worker sent.
pub(super) fn lease_id(text: &str) -> Result<LeaseId, HelloError> {
    id_from_hex(text).map(LeaseId).ok_or_else(|| HelloError::LeaseId(clip(text).to_owned()))
}

fn check_properties(properties: Vec<Property>) -> Result<Vec<(String, String)>, HelloError> {
    if properties.len() > PROPERTIES_MAX {
        return Err(HelloError::TooManyProperties);
    }
    let pairs: Vec<_> = properties.into_iter().map(|property| (property.name, property.value)).collect();
    let wrong =
        |(name, value): &&(String, String)| name.is_empty() || name.len() + value.len() > PROPERTY_BYTES_MAX;
    if let Some((name, _)) = pairs.iter().find(wrong) {
        return Err(HelloError::Property(clip(name).to_owned()));
    }
    if let Some(pair) = pairs.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Err(HelloError::Unsorted(clip(&pair[1].0).to_owned()));
    }
    Ok(pairs)
}

fn key_of(running: &worker::Running, instances: &Instances) -> Option<ActionKey> {
    let instance = instances.check(&running.instance_name).ok()?;
    let function = instance.function(running.digest_function, running.action_digest.as_ref()).ok()?;
    let action = Digest::from_proto(running.action_digest.as_ref()?, function).ok()?;
    Some(ActionKey { instance: Arc::clone(&instance.name), action })
}

#[cfg(test)]
mod tests {
    use castwork_cas::DigestFunction;

    use super::*;

    fn hello() -> worker::Hello {
        worker::Hello { worker_id: "0".repeat(32), slots: 2, ..Default::default() }
    }

    fn check(hello: worker::Hello) -> Result<Hello, HelloError> {
        Hello::check(hello, &Instances::new([]), &Kinds::default())
    }

    fn refused(hello: worker::Hello) -> HelloError {
        check(hello).map(|_| ()).unwrap_err()
    }

    fn properties(pairs: &[(&str, &str)]) -> Vec<Property> {
        let property =
            |&(name, value): &(&str, &str)| Property { name: name.to_owned(), value: value.to_owned() };
        pairs.iter().map(property).collect()
    }

    #[test]
    fn a_worker_without_a_name_is_called_by_its_id() {
        assert_eq!(&*check(hello()).unwrap().offer.name, "0".repeat(32));
    }

    #[test]
    fn a_worker_that_is_not_as_it_should_be_is_refused() {
        assert!(matches!(
            refused(worker::Hello { worker_id: "A".repeat(32), ..hello() }),
            HelloError::WorkerId(_)
        ));
        assert!(matches!(
            refused(worker::Hello { worker_id: "0".repeat(31), ..hello() }),
            HelloError::WorkerId(_)
        ));
        assert_eq!(refused(worker::Hello { slots: 0, ..hello() }), HelloError::Slots(0));
        assert_eq!(refused(worker::Hello { slots: 4_097, ..hello() }), HelloError::Slots(4_097));
        assert_eq!(refused(worker::Hello { name: "n".repeat(257), ..hello() }), HelloError::Name);
        let with = |pairs| worker::Hello { properties: properties(pairs), ..hello() };
        assert!(matches!(refused(with(&[("b", "1"), ("a", "1")])), HelloError::Unsorted(_)));
        assert!(matches!(refused(with(&[("a", "1"), ("a", "1")])), HelloError::Unsorted(_)));
        assert!(matches!(refused(with(&[("", "1")])), HelloError::Property(_)));
        assert!(check(with(&[("a", "1"), ("a", "2")])).is_ok(), "each value of a name counts");
    }

    #[test]
    fn a_lease_of_an_unknown_instance_is_void_and_does_not_lock_the_worker_out() {
        let digest = Digest::of(DigestFunction::Sha256, b"action").to_proto();
        let running = |instance: &str| worker::Running {
            lease_id: "1".repeat(32),
            instance_name: instance.to_owned(),
            action_digest: Some(digest.clone()),
            ..Default::default()
        };
        let checked =
            check(worker::Hello { running: vec![running(""), running("gone")], ..hello() }).unwrap();
        assert_eq!((checked.held.len(), checked.void.len()), (1, 1));
        let garbage = worker::Running { lease_id: "x".to_owned(), ..running("") };
        assert!(matches!(
            refused(worker::Hello { running: vec![garbage], ..hello() }),
            HelloError::LeaseId(_)
        ));
    }
}
