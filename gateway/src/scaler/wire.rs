//! The messages of KEDA's `externalscaler.proto`, and the paths of its methods.
//!
//! Each field is numbered and encoded as there. What is not known here is skipped, as proto3 has it.

use std::collections::HashMap;

use prost::DecodeError;
use prost::Message;
use prost::bytes::{Buf, BufMut};
use prost::encoding::{self, DecodeContext, WireType, skip_field};

/// `IsActive`.
pub const IS_ACTIVE: &str = "/externalscaler.ExternalScaler/IsActive";
/// `StreamIsActive`.
pub const STREAM_IS_ACTIVE: &str = "/externalscaler.ExternalScaler/StreamIsActive";
/// `GetMetricSpec`.
pub const GET_METRIC_SPEC: &str = "/externalscaler.ExternalScaler/GetMetricSpec";
/// `GetMetrics`.
pub const GET_METRICS: &str = "/externalscaler.ExternalScaler/GetMetrics";

/// A message: for each field its number, the functions that encode it, its name and its type.
macro_rules! message {
    ($(#[$about:meta])* $name:ident { $($(#[$said:meta])* $tag:literal $($kind:ident)::+, $field:ident: $type:ty;)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $name {
            $($(#[$said])* pub $field: $type,)+
        }

        impl Message for $name {
            fn encode_raw(&self, buffer: &mut impl BufMut) {
                $($($kind)::+::encode($tag, &self.$field, buffer);)+
            }

            fn merge_field(
                &mut self,
                tag: u32,
                wire_type: WireType,
                buffer: &mut impl Buf,
                context: DecodeContext,
            ) -> Result<(), DecodeError> {
                match tag {
                    $($tag => $($kind)::+::merge(wire_type, &mut self.$field, buffer, context),)+
                    _ => skip_field(wire_type, tag, buffer, context),
                }
            }

            fn encoded_len(&self) -> usize {
                0 $(+ $($kind)::+::encoded_len($tag, &self.$field))+
            }

            fn clear(&mut self) {
                *self = Self::default();
            }
        }
    };
}

message! {
    /// Whose trigger asks.
    ScaledObjectRef {
        /// The ScaledObject's name.
        1 encoding::string, name: String;
        /// Its namespace.
        2 encoding::string, namespace: String;
        /// The trigger's metadata.
        3 map, scaler_metadata: HashMap<String, String>;
    }
}

message! {
    /// Whether anything should run at all.
    IsActiveResponse {
        /// `true` takes zero to one.
        1 encoding::bool, result: bool;
    }
}

message! {
    /// What is measured.
    GetMetricSpecResponse {
        /// One for each metric.
        1 repeated, metric_specs: Vec<MetricSpec>;
    }
}

message! {
    /// One metric, and how much of it is one worker's share.
    MetricSpec {
        /// Its name.
        1 encoding::string, metric_name: String;
        /// For a KEDA that does not know the next.
        2 encoding::int64, target_size: i64;
        /// The share.
        3 encoding::double, target_size_float: f64;
    }
}

message! {
    /// Which metric to read.
    GetMetricsRequest {
        /// Whose trigger asks.
        1 encoding::message, scaled_object_ref: ScaledObjectRef;
        /// The metric's name. There is one only, so it is not looked at.
        2 encoding::string, metric_name: String;
    }
}

message! {
    /// What the metrics are.
    GetMetricsResponse {
        /// One for each metric.
        1 repeated, metric_values: Vec<MetricValue>;
    }
}

message! {
    /// One metric now.
    MetricValue {
        /// Its name.
        1 encoding::string, metric_name: String;
        /// For a KEDA that does not know the next.
        2 encoding::int64, metric_value: i64;
        /// The value.
        3 encoding::double, metric_value_float: f64;
    }
}

/// A list of messages.
mod repeated {
    pub use prost::encoding::message::{
        encode_repeated as encode, encoded_len_repeated as encoded_len, merge_repeated as merge,
    };
}

/// A map of texts.
mod map {
    use super::{Buf, BufMut, DecodeContext, DecodeError, HashMap, WireType};
    use prost::encoding::{hash_map, string};

    pub fn encode(tag: u32, map: &HashMap<String, String>, buffer: &mut impl BufMut) {
        let (write, measure) = (string::encode, string::encoded_len);
        hash_map::encode(write, measure, write, measure, tag, map, buffer);
    }

    /// The wire type is not looked at, as prost's own code for maps does not: an entry says its own.
    pub fn merge(
        _: WireType,
        map: &mut HashMap<String, String>,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        hash_map::merge(string::merge, string::merge, map, buffer, context)
    }

    pub fn encoded_len(tag: u32, map: &HashMap<String, String>) -> usize {
        hash_map::encoded_len(string::encoded_len, string::encoded_len, tag, map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_keda_numbers_its_fields() {
        let bytes = b"\x0a\x14\x0a\x01n\x12\x02ns\x1a\x0b\x0a\x06target\x12\x019\x12\x01m";
        let request = GetMetricsRequest::decode(&bytes[..]).unwrap();
        let scaled = request.scaled_object_ref;
        assert_eq!((scaled.name.as_str(), scaled.namespace.as_str()), ("n", "ns"));
        assert_eq!(scaled.scaler_metadata["target"], "9");
        assert_eq!(request.metric_name, "m");
    }

    #[test]
    fn answers_are_written_as_keda_numbers_their_fields() {
        assert_eq!(IsActiveResponse { result: true }.encode_to_vec(), b"\x08\x01");
        let (metric_name, half) = (String::from("m"), b"\x19\0\0\0\0\0\0\xe0\x3f");
        let metric_specs = vec![MetricSpec {
            metric_name: metric_name.clone(),
            target_size: 1,
            target_size_float: 0.5,
        }];
        let metric_values = vec![MetricValue {
            metric_name,
            metric_value: 1,
            metric_value_float: 0.5,
        }];
        let expected = [b"\x0a\x0e\x0a\x01m\x10\x01".as_slice(), half].concat();
        assert_eq!(GetMetricSpecResponse { metric_specs }.encode_to_vec(), expected);
        assert_eq!(GetMetricsResponse { metric_values }.encode_to_vec(), expected);
    }
}
