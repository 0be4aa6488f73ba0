//! Every route: its method, its path, what it asks of its callers, and who answers it.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::{Method, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, any, on};

use crate::app::App;
use crate::auth::{self, Access, Scope};
use crate::edge;
use crate::routes::{bindings, chain, dead, health, http, invoke, jobs, modules, openapi, store, wasm};

const ADMIN: Access = Access::Scope(Scope::Admin);
const INVOKE: Access = Access::Scope(Scope::Invoke);
const STORE: Access = Access::Scope(Scope::Store);
const READ: Access = Access::AnyToken;
const ANYONE: Access = Access::Anyone;

fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::POST, "/v1/modules", STORE, store::store),
        Route::new(Method::GET, "/v1/modules", READ, modules::list),
        Route::new(Method::GET, "/v1/modules/{ref}", READ, modules::get),
        Route::new(Method::DELETE, "/v1/modules/{ref}", ADMIN, modules::delete),
        Route::new(Method::GET, "/v1/modules/{ref}/wasm", READ, wasm::download),
        Route::new(
            Method::PUT,
            "/v1/modules/{name}/settings",
            STORE,
            store::configure,
        ),
        Route::new(Method::PUT, "/v1/modules/{name}/tags/{tag}", ADMIN, modules::tag),
        Route::new(
            Method::DELETE,
            "/v1/modules/{name}/tags/{tag}",
            ADMIN,
            modules::untag,
        ),
        Route::new(Method::POST, "/v1/invoke", INVOKE, invoke::invocation),
        Route::new(Method::POST, "/v1/modules/{ref}/invoke", INVOKE, invoke::module),
        Route::new(
            Method::POST,
            "/v1/modules/{ref}/invoke/{function}",
            INVOKE,
            invoke::function,
        ),
        Route::any("/v1/http/{ref}", INVOKE, http::pass),
        Route::any("/v1/http/{ref}/", INVOKE, http::pass),
        Route::any("/v1/http/{ref}/{*path}", INVOKE, http::pass),
        Route::new(Method::POST, "/v1/chain", INVOKE, chain::chain),
        Route::new(Method::POST, "/v1/jobs", INVOKE, jobs::submit),
        Route::new(Method::GET, "/v1/jobs", INVOKE, jobs::list),
        Route::new(Method::GET, "/v1/jobs/{id}", INVOKE, jobs::get),
        Route::new(Method::DELETE, "/v1/jobs/{id}", INVOKE, jobs::cancel),
        Route::new(Method::GET, "/v1/jobs/{id}/wait", INVOKE, jobs::wait),
        Route::new(Method::GET, "/v1/dead", ADMIN, dead::list),
        Route::new(Method::DELETE, "/v1/dead", ADMIN, dead::purge_all),
        Route::new(Method::GET, "/v1/dead/{id}", ADMIN, dead::get),
        Route::new(Method::DELETE, "/v1/dead/{id}", ADMIN, dead::purge_one),
        Route::new(Method::POST, "/v1/dead/{id}/redrive", ADMIN, dead::redrive),
        Route::new(Method::GET, "/v1/bindings", READ, bindings::list),
        Route::new(Method::GET, "/v1/bindings/{name}", READ, bindings::get),
        Route::new(Method::PUT, "/v1/bindings/{name}", ADMIN, bindings::put),
        Route::new(Method::DELETE, "/v1/bindings/{name}", ADMIN, bindings::delete),
        Route::new(Method::GET, "/livez", ANYONE, health::live),
        Route::new(Method::GET, "/readyz", ANYONE, health::ready),
        Route::new(Method::GET, "/openapi.json", ANYONE, openapi::document),
    ]
}

/// One line of the table.
struct Route {
    /// None for every method.
    method: Option<Method>,
    path: &'static str,
    access: Access,
    handler: MethodRouter<Arc<App>>,
}

impl Route {
    fn new<H, T>(method: Method, path: &'static str, access: Access, handler: H) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).expect("the table has only standard methods");
        Self {
            method: Some(method),
            path,
            access,
            handler: on(filter, handler),
        }
    }

    /// One that takes every method.
    fn any<H, T>(path: &'static str, access: Access, handler: H) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        Self {
            method: None,
            path,
            access,
            handler: any(handler),
        }
    }

    fn guarded(self, app: &Arc<App>) -> MethodRouter<Arc<App>> {
        let access = match self.access {
            Access::Anyone => return self.handler,
            access => access,
        };
        let check = from_fn_with_state((app.clone(), access), auth::check);
        match self.method {
            // What a route does not take is refused before anybody is asked who it is.
            Some(_) => self.handler.route_layer(check),
            None => self.handler.layer(check),
        }
    }
}

/// Everything that is served on the HTTP port.
pub struct Routers {
    /// What hosts of no module are answered with.
    pub own: Router,
    /// What hosts of modules are; it takes the module from the request's extension.
    pub hosted: Router,
}

impl Routers {
    /// The routes of the contract, and any of modules' hosts.
    pub fn new(app: Arc<App>) -> Self {
        Self {
            own: own(app.clone()),
            hosted: hosted(app),
        }
    }
}

/// Every path of a host goes to its module, on the terms of `/v1/http`.
fn hosted(app: Arc<App>) -> Router {
    Router::new()
        .fallback(http::hosted)
        .layer(from_fn_with_state((app.clone(), INVOKE), auth::check))
        .layer(from_fn_with_state(app.clone(), edge::edge))
        .with_state(app)
}

fn own(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for route in routes() {
        router = router.route(route.path, route.guarded(&app));
    }
    router
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(from_fn_with_state(app.clone(), edge::edge))
        .with_state(app)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::routes::openapi::tests::served;
    use serde_json::Value;

    /// The methods that an OpenAPI document can name.
    const METHODS: [&str; 8] = [
        "GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE",
    ];
    /// Paths that are another one with its last part empty.
    const SHORT_FORMS: [&str; 2] = ["/v1/http/{ref}", "/v1/http/{ref}/"];

    /// Method, path and who may: as the router has it, and as the document says it.
    type Line = (String, String, Vec<String>);

    fn routed() -> BTreeSet<Line> {
        let security = |access| match access {
            Access::Anyone => vec![],
            Access::AnyToken => vec!["bearer".into()],
            Access::Scope(scope) => vec!["bearer".into(), scope.as_str().into()],
        };
        let lines = |route: Route| {
            let (path, security) = (route.path.replace("{*", "{"), security(route.access));
            // What takes every method is documented with those that the document can name.
            let methods = match route.method {
                Some(method) => vec![method.to_string()],
                None => METHODS.map(str::to_owned).to_vec(),
            };
            methods
                .into_iter()
                .map(move |method| (method, path.clone(), security.clone()))
        };
        let routes = routes().into_iter();
        routes
            .filter(|route| !SHORT_FORMS.contains(&route.path))
            .flat_map(lines)
            .collect()
    }

    fn documented() -> BTreeSet<Line> {
        let document = served();
        let mut lines = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations
                .as_object()
                .unwrap()
                .iter()
                .filter(|(key, _)| *key != "parameters")
            {
                let security = operation.get("security").unwrap_or(&document["security"]);
                lines.insert((method.to_uppercase(), path.clone(), words(&security[0])));
            }
        }
        lines
    }

    fn words(requirement: &Value) -> Vec<String> {
        let Some(scopes) = requirement.get("bearer") else {
            return vec![];
        };
        let scopes = scopes
            .as_array()
            .unwrap()
            .iter()
            .map(|scope| scope.as_str().unwrap().into());
        std::iter::once("bearer".into()).chain(scopes).collect()
    }

    #[test]
    fn the_openapi_document_has_every_route_with_what_it_asks_and_no_other() {
        assert_eq!(routed(), documented());
    }
}
