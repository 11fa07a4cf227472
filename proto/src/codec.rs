//! [`Bounded`]: messages as they come over gRPC, none of which is decoded before it is known what it takes in memory.

use std::marker::PhantomData;
use std::sync::OnceLock;

use prost::{Message, Name};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::weigh::{weigh, weight_max};

/// Says whether there is memory for a message that takes so many bytes beside its own.
pub type Admit = fn(usize) -> bool;

static ADMIT: OnceLock<Admit> = OnceLock::new();

/// Has every message of this process be decoded only if `admit` says so, which is called by the task that reads it.
/// The first who asks for that decides.
pub fn admit_with(admit: Admit) {
    let _ = ADMIT.set(admit);
}

/// The codec of all services and clients.
#[derive(Clone, Debug)]
pub struct Bounded<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Bounded<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for Bounded<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(ProstCodec::<U, U>::raw_decoder(BufferSettings::default()))
    }
}

/// Decodes messages.
#[derive(Clone, Debug)]
pub struct BoundedDecoder<U>(ProstDecoder<U>);

impl<U: Message + Name + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        use prost::bytes::Buf as _;
        let bytes = buffer.chunk();
        debug_assert_eq!(bytes.len(), buffer.remaining(), "tonic gathers a message before it is decoded");
        let weight = weigh::<U>(bytes, weight_max(bytes.len()))
            .map_err(|refused| Status::invalid_argument(refused.to_string()))?;
        if weight > 0 && ADMIT.get().is_some_and(|admit| !admit(weight)) {
            return Err(Status::resource_exhausted("no memory for the request now; try again"));
        }
        self.0.decode(buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}
