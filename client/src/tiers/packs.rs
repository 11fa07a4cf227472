//! [`Packs`]: many small things in few objects, for stores that count uploads and never change an object (GitHub's
//! cache allows 200 uploads a minute).
//!
//! What is to be kept waits in a folder until there is enough for a pack, or until [`Packs::flush`]. A pack is a blob;
//! an *entry*, numbered from 0 each day, names the newest pack and says which pack has what, of earlier ones too. Who
//! looks for something finds the last entry of the last days by a few questions, once; then a pack is one download, and
//! all of it goes into the local cache: who needs one of its objects will need the others.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use castwork_cas::store::{collect, stream_of};
use castwork_cas::{
    ActionCache, ActionKey, BlobStore, ByteRange, Digest, DigestFunction, Objects, StoreError,
};
use castwork_proto::reapi;
use prost::Message;
use tokio::time::Instant;

use super::FolderTier;

/// Names the kind of entries; changes with what is in them.
const KIND: &str = "packs-1";

/// So many things are one pack.
const PACK_COUNT: usize = 400;

/// No pack is larger than this, unless one thing is.
const PACK_BYTES_MAX: u64 = 64 << 20;

/// Larger ones are not read: they are made of no more than this, and of one thing more.
const PACK_BYTES_LIMIT: u64 = 4 * PACK_BYTES_MAX;

/// Entries of a day, at most; a store that has more is none of ours.
const ENTRIES_MAX: u64 = 1 << 20;

/// GitHub removes what nobody has read for a week.
const DAYS: u64 = 8;

/// Things that an index remembers; the oldest are forgotten.
const INDEX_COUNT_MAX: usize = 100_000;

/// How long an index is good for, if nothing that it lacks is known.
const INDEX_AGE_MAX: Duration = Duration::from_secs(600);

/// The longest wait for another process that downloads, or uploads, a pack.
const TURN_WAIT: Duration = Duration::from_secs(30);

/// How often is looked whether it is our turn.
const TURN_LOOK: Duration = Duration::from_millis(20);

/// How often another number is tried for an entry, when others write at the same time.
const TRIES: usize = 5;

/// See the module.
pub(super) struct Packs {
    folder: PathBuf,
    local: FolderTier,
}

/// Which pack has what.
#[derive(Clone, PartialEq, prost::Message)]
struct Index {
    /// The day since 1970 of the entry that this is from.
    #[prost(uint64, tag = "1")]
    day: u64,
    /// The number of the next entry of that day.
    #[prost(uint64, tag = "2")]
    next: u64,
    /// The digests of packs.
    #[prost(string, repeated, tag = "3")]
    packs: Vec<String>,
    /// What they hold, in the order in which it came.
    #[prost(message, repeated, tag = "4")]
    places: Vec<Place>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Place {
    /// The hash of a name.
    #[prost(bytes = "bytes", tag = "1")]
    name: Bytes,
    /// The place of its pack among [`Index::packs`].
    #[prost(uint32, tag = "2")]
    pack: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Pack {
    #[prost(message, repeated, tag = "1")]
    things: Vec<Thing>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Thing {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", tag = "2")]
    data: Bytes,
}

impl Packs {
    /// Packs of the store that a URL names; `dir` is the wrapper's folder, and `local` its cache.
    pub(super) fn new(url: &str, dir: &Path, local: FolderTier) -> Self {
        let name = Digest::of(DigestFunction::Sha256, url.as_bytes()).hash_hex();
        Self { folder: dir.join("packs").join(&name[..16]), local }
    }

    /// Whether a URL is of a store that needs packs.
    pub(super) fn are_needed(url: &str) -> bool {
        url.starts_with("gha:")
    }

    /// Looks for something; with it, all that is in the same pack goes into the local cache.
    pub(super) async fn find(&self, objects: &Objects, name: &Digest) -> Result<Option<Bytes>, StoreError> {
        let index = self.index(objects, false).await?;
        let Some(pack) = index.pack_of(name) else { return Ok(None) };
        let _turn = self.turn("download").await;
        // Somebody may have had the same wish, and an earlier turn.
        if let Some(data) = self.local.raw(name) {
            return Ok(Some(data));
        }
        let data = match BlobStore::get(objects, &pack, ByteRange::ALL).await {
            Ok(stream) => collect(stream, PACK_BYTES_LIMIT).await?,
            Err(StoreError::Missing(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Ok(pack) = Pack::decode(data) else { return Ok(None) };
        let mut found = None;
        for thing in pack.things {
            let Ok(digest) = thing.name.parse::<Digest>() else { continue };
            if digest == *name {
                found = Some(thing.data.clone());
            }
            // What is here already may be newer.
            if self.local.raw(&digest).is_none() {
                self.local.put_raw(&digest, thing.data);
            }
        }
        Ok(found)
    }

    /// Has something wait for its pack, and sends the pack if that is enough.
    pub(super) async fn put(&self, objects: &Objects, name: &Digest, data: &Bytes) -> Result<(), StoreError> {
        let folder = self.waiting();
        self.write(&folder.join(name.to_string().replace('/', "-")), data)?;
        let count = fs::read_dir(&folder).map_or(0, Iterator::count);
        if count < PACK_COUNT { Ok(()) } else { self.flush(objects).await.map(drop) }
    }

    /// Whether something waits.
    pub(super) fn has_some(&self) -> bool {
        fs::read_dir(self.waiting()).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Sends what waits, however little it is; how many things that were.
    pub(super) async fn flush(&self, objects: &Objects) -> Result<usize, StoreError> {
        let Some(_turn) = self.turn("upload").await else { return Ok(0) };
        let mut sent = 0;
        loop {
            let (paths, pack) = self.gather();
            if paths.is_empty() {
                return Ok(sent);
            }
            self.send(objects, &pack).await?;
            sent += paths.len();
            for path in paths {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// As many of those that wait as one pack takes.
    fn gather(&self) -> (Vec<PathBuf>, Pack) {
        let (mut paths, mut pack, mut bytes) = (Vec::new(), Pack::default(), 0);
        for entry in fs::read_dir(self.waiting()).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().replace('-', "/");
            let Some(data) = name.parse::<Digest>().ok().and_then(|_| fs::read(&path).ok()) else { continue };
            bytes += data.len() as u64;
            paths.push(path);
            pack.things.push(Thing { name, data: data.into() });
            if bytes >= PACK_BYTES_MAX {
                break;
            }
        }
        (paths, pack)
    }

    async fn send(&self, objects: &Objects, pack: &Pack) -> Result<(), StoreError> {
        let data = Bytes::from(pack.encode_to_vec());
        let digest = Digest::of(DigestFunction::Sha256, &data);
        BlobStore::put(objects, &digest, stream_of(data)).await?;
        let mut failed = None;
        for _ in 0..TRIES {
            let mut index = self.index(objects, true).await?;
            index.add(&digest, pack);
            let today = today();
            if index.day != today {
                (index.day, index.next) = (today, 0);
            }
            let key = key(index.day, index.next);
            index.next += 1;
            let result =
                reapi::ActionResult { stdout_raw: index.encode_to_vec().into(), ..Default::default() };
            match objects.put_new_result(&key, &result).await {
                Ok(true) => {
                    self.write(&self.folder.join("index"), &index.encode_to_vec())?;
                    return Ok(());
                }
                // Somebody else has this number: then there is a newer entry to begin with.
                Ok(false) => failed = None,
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| StoreError::Disk {
            step: "find a number for the index of a pack that nobody else took".to_owned(),
            source: std::io::ErrorKind::ResourceBusy.into(),
        }))
    }

    /// The newest index there is; one that was read a moment ago will do, unless it has to be `exact`.
    async fn index(&self, objects: &Objects, exact: bool) -> Result<Index, StoreError> {
        let path = self.folder.join("index");
        if !exact && let Some(index) = read_recent(&path) {
            return Ok(index);
        }
        let mut found = Index { day: today(), ..Index::default() };
        for day in (0..DAYS).map(|ago| today().saturating_sub(ago)) {
            if let Some(index) = last_of(objects, day).await? {
                found = index;
                break;
            }
        }
        self.write(&path, &found.encode_to_vec())?;
        Ok(found)
    }

    fn waiting(&self) -> PathBuf {
        self.folder.join("waiting")
    }

    fn write(&self, path: &Path, data: &[u8]) -> Result<(), StoreError> {
        let folder = path.parent().unwrap_or(&self.folder);
        let written = fs::create_dir_all(folder)
            .and_then(|()| tempfile::NamedTempFile::new_in(&self.folder))
            .and_then(|mut file| file.write_all(data).map(|()| file))
            .and_then(|file| file.persist(path).map_err(|error| error.error));
        written
            .map(drop)
            .map_err(|source| StoreError::Disk { step: format!("write `{}`", path.display()), source })
    }

    /// Waits until no other process of this user does the same; `None` if that takes too long.
    async fn turn(&self, what: &str) -> Option<fs::File> {
        fs::create_dir_all(&self.folder).ok()?;
        let lock = fs::File::create(self.folder.join(what)).ok()?;
        let deadline = Instant::now() + TURN_WAIT;
        while lock.try_lock().is_err() {
            if Instant::now() >= deadline {
                return None;
            }
            tokio::time::sleep(TURN_LOOK).await;
        }
        Some(lock)
    }
}

impl Index {
    fn pack_of(&self, name: &Digest) -> Option<Digest> {
        let place = self.places.iter().rev().find(|place| place.name == name.hash())?;
        self.packs.get(usize::try_from(place.pack).ok()?)?.parse().ok()
    }

    fn add(&mut self, digest: &Digest, pack: &Pack) {
        let number = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        self.packs.push(digest.to_string());
        let names = pack.things.iter().filter_map(|thing| thing.name.parse::<Digest>().ok());
        self.places
            .extend(names.map(|name| Place { name: Bytes::copy_from_slice(name.hash()), pack: number }));
        let too_many = self.places.len().saturating_sub(INDEX_COUNT_MAX);
        self.places.drain(..too_many);
    }
}

fn read_recent(path: &Path) -> Option<Index> {
    let written = fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?;
    if written.elapsed().is_ok_and(|age| age < INDEX_AGE_MAX) {
        return Index::decode(&fs::read(path).ok()?[..]).ok();
    }
    None
}

/// The index of a day's last entry: numbers are doubled until there is none, and then halved.
async fn last_of(objects: &Objects, day: u64) -> Result<Option<Index>, StoreError> {
    let Some(mut last) = entry(objects, day, 0).await? else { return Ok(None) };
    let (mut there, mut gone) = (0, 1);
    while gone < ENTRIES_MAX
        && let Some(index) = entry(objects, day, gone).await?
    {
        (last, there, gone) = (index, gone, gone * 2);
    }
    while gone - there > 1 {
        let middle = there + (gone - there) / 2;
        match entry(objects, day, middle).await? {
            Some(index) => (last, there) = (index, middle),
            None => gone = middle,
        }
    }
    // Whatever it says of itself.
    (last.day, last.next) = (day, there + 1);
    Ok(Some(last))
}

async fn entry(objects: &Objects, day: u64, number: u64) -> Result<Option<Index>, StoreError> {
    let result = ActionCache::get(objects, &key(day, number)).await?;
    Ok(result.and_then(|result| Index::decode(result.stdout_raw).ok()))
}

fn key(day: u64, number: u64) -> ActionKey {
    let action = Digest::of(DigestFunction::Sha256, format!("{day} {number}").as_bytes());
    ActionKey { instance: KIND.into(), action }
}

fn today() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_secs() / (24 * 60 * 60)
}
