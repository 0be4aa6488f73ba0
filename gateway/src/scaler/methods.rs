//! The methods of KEDA's `ExternalScaler` service, and the way from a request's path to its method.
//!
//! Says `UNAVAILABLE` instead of a number that is not known: KEDA then leaves the workers as they are.

use std::collections::HashMap;
use std::future::{Ready, ready};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use hyper::body::Incoming;
use hyper::http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::server::{Grpc, ServerStreamingService, UnaryService};

use super::codec::ProstCodec;
use super::load::LoadWatch;
use super::wire::{
    GET_METRIC_SPEC, GET_METRICS, GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IS_ACTIVE,
    IsActiveResponse, MetricSpec, MetricValue, STREAM_IS_ACTIVE, ScaledObjectRef,
};

/// The only metric.
const METRIC: &str = "wess_work";
/// The key in a trigger's metadata that says how much work is one worker's share.
const TARGET: &str = "target";
/// The share where a trigger does not say: three quarters of the slots that a worker has untold.
const DEFAULT_TARGET: f64 = 96.0;
/// Largest request. KEDA sends a trigger's metadata.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// Answers KEDA. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Methods {
    /// What there is to do.
    pub load: LoadWatch,
    /// Ends streams.
    pub shutdown: CancellationToken,
}

impl Methods {
    /// Answers one request, of whichever method.
    pub async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        match request.uri().path() {
            IS_ACTIVE => self.unary(request, Self::is_active).await,
            GET_METRIC_SPEC => self.unary(request, Self::metric_spec).await,
            GET_METRICS => self.unary(request, Self::metrics).await,
            STREAM_IS_ACTIVE => {
                let mut grpc = Grpc::new(ProstCodec::<IsActiveResponse, ScaledObjectRef>::default())
                    .max_decoding_message_size(MAX_REQUEST_BYTES);
                grpc.server_streaming(Streaming(self), request).await
            }
            path => Status::unimplemented(format!("there is no {path}")).into_http(),
        }
    }

    async fn unary<A, B>(
        self,
        request: Request<Incoming>,
        method: fn(&Self, A) -> Result<B, Status>,
    ) -> Response<Body>
    where
        A: prost::Message + Default + 'static,
        B: prost::Message + 'static,
    {
        let mut grpc = Grpc::new(ProstCodec::<B, A>::default()).max_decoding_message_size(MAX_REQUEST_BYTES);
        let methods = self;
        grpc.unary(Unary { methods, method }, request).await
    }

    fn is_active(&self, _: ScaledObjectRef) -> Result<IsActiveResponse, Status> {
        let result = self.load.is_active().ok_or_else(unknown)?;
        Ok(IsActiveResponse { result })
    }

    fn metric_spec(&self, scaled: ScaledObjectRef) -> Result<GetMetricSpecResponse, Status> {
        let target = target(&scaled.scaler_metadata)?;
        let spec = MetricSpec {
            metric_name: METRIC.into(),
            target_size: target.ceil() as i64,
            target_size_float: target,
        };
        Ok(GetMetricSpecResponse {
            metric_specs: vec![spec],
        })
    }

    fn metrics(&self, _: GetMetricsRequest) -> Result<GetMetricsResponse, Status> {
        let work = self.load.work().ok_or_else(unknown)?;
        let value = MetricValue {
            metric_name: METRIC.into(),
            metric_value: work as i64,
            metric_value_float: work as f64,
        };
        Ok(GetMetricsResponse {
            metric_values: vec![value],
        })
    }

    /// What is known at once, then each change, until shutdown.
    fn activities(self) -> BoxStream<'static, Result<IsActiveResponse, Status>> {
        let Self { load, shutdown } = self;
        let told = stream::unfold((load, None), async |(mut load, told)| {
            let result = load.activity(told).await?;
            Some((Ok(IsActiveResponse { result }), (load, Some(result))))
        });
        let leaving = stream::once(ready(Err(Status::unavailable("this gateway stops"))));
        told.take_until(shutdown.cancelled_owned()).chain(leaving).boxed()
    }
}

fn unknown() -> Status {
    Status::unavailable("this gateway does not know yet, or not any more, who works and what waits")
}

fn target(metadata: &HashMap<String, String>) -> Result<f64, Status> {
    let Some(text) = metadata.get(TARGET) else {
        return Ok(DEFAULT_TARGET);
    };
    let share = text
        .parse()
        .ok()
        .filter(|share: &f64| share.is_finite() && *share > 0.0);
    share.ok_or_else(|| Status::invalid_argument(format!("{TARGET} is {text:?}, not a number above 0")))
}

/// A method with one answer, which it has at once.
struct Unary<A, B> {
    methods: Methods,
    method: fn(&Methods, A) -> Result<B, Status>,
}

impl<A, B> UnaryService<A> for Unary<A, B> {
    type Response = B;
    type Future = Ready<Result<tonic::Response<B>, Status>>;

    fn call(&mut self, request: tonic::Request<A>) -> Self::Future {
        ready((self.method)(&self.methods, request.into_inner()).map(tonic::Response::new))
    }
}

/// The method that goes on answering.
struct Streaming(Methods);

impl ServerStreamingService<ScaledObjectRef> for Streaming {
    type Response = IsActiveResponse;
    type ResponseStream = BoxStream<'static, Result<IsActiveResponse, Status>>;
    type Future = Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: tonic::Request<ScaledObjectRef>) -> Self::Future {
        ready(Ok(tonic::Response::new(self.0.clone().activities())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> HashMap<String, String> {
        HashMap::from([(TARGET.into(), text.into())])
    }

    #[test]
    fn a_target_is_a_number_above_zero_and_96_when_none_is_given() {
        assert_eq!(target(&HashMap::new()).unwrap(), 96.0);
        assert_eq!(target(&of("2.5")).unwrap(), 2.5);
        for wrong in ["", "0", "-1", "many", "inf", "NaN"] {
            let status = target(&of(wrong)).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument, "{wrong}");
        }
    }
}
