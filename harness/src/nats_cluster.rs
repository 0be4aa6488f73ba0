//! Three real nats-servers on loopback that form one JetStream cluster, any of which may be killed and come back.
//!
//! Who leads is what the servers' own monitoring says, and only once all that run agree. Clients are told of no server but
//! those they were given, so that a test knows whom they speak to.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::nats_server::NatsServer;
use crate::wait::{DEADLINE, eventually_blocking};

const SIZE: usize = 3;
/// The most that a monitoring answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// A running cluster. Killed when dropped.
#[derive(Debug)]
pub struct NatsCluster {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    server: NatsServer,
    monitoring: SocketAddr,
    running: bool,
}

impl NatsCluster {
    /// Starts it, and waits until it is whole.
    pub fn start() -> Self {
        let routes = reserve::<SIZE>();
        let monitoring = reserve::<SIZE>();
        let nodes = (0..SIZE).map(|node| Node {
            server: NatsServer::builder()
                .config(&config(node, &routes, monitoring[node]))
                .start(),
            monitoring: monitoring[node],
            running: true,
        });
        let cluster = Self {
            nodes: nodes.collect(),
        };
        cluster.wait_whole();
        cluster
    }

    /// Where clients connect to each; the same after every restart.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.server.url()).collect()
    }

    /// The same in one text, as our binaries take it.
    pub fn url(&self) -> String {
        self.urls().join(",")
    }

    /// One server, to put a proxy before it or to hold it still.
    pub fn node(&self, node: usize) -> &NatsServer {
        &self.nodes[node].server
    }

    /// Kills one, as a crash would. The others go on by themselves; [`NatsCluster::wait_for_leader`] waits for that.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].server.kill();
        self.nodes[node].running = false;
    }

    /// Starts one again, on the same ports and store; kills it first if it runs.
    pub fn restart(&mut self, node: usize) {
        self.nodes[node].server.restart();
        self.nodes[node].running = true;
    }

    /// Who leads the cluster's own log, if those that run agree on one of them.
    pub fn meta_leader(&self) -> Option<usize> {
        self.agreed(|node| {
            let said = node.monitor("/jsz")?;
            Some(said.pointer("/meta_cluster/leader")?.as_str()?.to_owned())
        })
    }

    /// Who leads a stream, if those that run and hold it agree on one of them.
    pub fn stream_leader(&self, stream: &str) -> Option<usize> {
        let leaders = self.running().filter_map(|node| node.stream_leader(stream));
        self.only(leaders.collect())
    }

    /// Waits until those that run have a leader; who it is.
    pub fn wait_for_leader(&self) -> usize {
        self.wait("a leader", Self::meta_leader)
    }

    /// Waits until a stream has a leader; who it is.
    pub fn wait_for_stream_leader(&self, stream: &str) -> usize {
        self.wait("a stream's leader", |cluster| cluster.stream_leader(stream))
    }

    /// Waits until those that run have a leader, and each holds all that it should.
    pub fn wait_whole(&self) {
        self.wait("a whole cluster", |cluster| {
            cluster.meta_leader()?;
            let whole = |node: &Node| {
                node.monitor("/healthz")
                    .is_some_and(|said| said["status"] == "ok")
            };
            cluster.running().all(whole).then_some(())
        });
    }

    fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.running)
    }

    fn agreed(&self, leader: impl Fn(&Node) -> Option<String>) -> Option<usize> {
        self.only(self.running().map(leader).collect::<Option<_>>()?)
    }

    /// The node that all these names are, if it runs.
    fn only(&self, names: Vec<String>) -> Option<usize> {
        let first = names.first()?;
        let node = (0..SIZE).find(|node| name(*node) == *first)?;
        (self.nodes[node].running && names.iter().all(|name| name == first)).then_some(node)
    }

    fn wait<T>(&self, what: &str, probe: impl Fn(&Self) -> Option<T>) -> T {
        let found = eventually_blocking(DEADLINE, || probe(self));
        found.unwrap_or_else(|| panic!("waited {DEADLINE:?} for {what}"))
    }
}

impl Node {
    fn stream_leader(&self, stream: &str) -> Option<String> {
        let said = self.monitor("/jsz?streams=true")?;
        let accounts = said["account_details"].as_array()?;
        let mut streams = accounts
            .iter()
            .filter_map(|account| account["stream_detail"].as_array())
            .flatten();
        let found = streams.find(|found| found["name"] == stream)?;
        // One that has lost its leader still counts: it disagrees.
        let leader = found.pointer("/cluster/leader").and_then(Value::as_str);
        Some(leader.unwrap_or_default().to_owned())
    }

    fn monitor(&self, path: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(self.monitoring).ok()?;
        stream.set_read_timeout(Some(ANSWER)).ok()?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.monitoring);
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    }
}

fn name(node: usize) -> String {
    format!("node-{node}")
}

fn config(node: usize, routes: &[SocketAddr; SIZE], monitoring: SocketAddr) -> String {
    let others = (0..SIZE)
        .filter(|other| *other != node)
        .map(|other| format!("\"nats://{}\"", routes[other]));
    format!(
        "server_name: \"{}\"\nhttp: \"{monitoring}\"\n\
         cluster {{ name: \"wess-test\", listen: \"{}\", no_advertise: true, routes: [{}] }}",
        name(node),
        routes[node],
        others.collect::<Vec<_>>().join(", ")
    )
}

/// Free ports, on an address of loopback that only this process uses: nothing takes one before the servers do.
fn reserve<const N: usize>() -> [SocketAddr; N] {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, high, middle, low);
    let held = [(); N].map(|()| TcpListener::bind((own, 0)).expect("loopback has a free port"));
    held.map(|listener| listener.local_addr().expect("a bound listener has an address"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    /// Asks JetStream by NATS's own protocol; its answer.
    fn ask(url: &str, api: &str, body: &str) -> Value {
        let mut stream = TcpStream::connect(url.trim_start_matches("nats://")).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let size = body.len();
        let lines = format!(
            "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB $JS.API.{api} answer {size}\r\n{body}\r\n"
        );
        stream.write_all(lines.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        lines.find(|line| line.starts_with("MSG answer")).unwrap();
        serde_json::from_str(&lines.next().unwrap()).unwrap()
    }

    #[test]
    fn a_stream_that_lost_its_leader_elects_another() {
        let mut cluster = NatsCluster::start();
        let stream = r#"{"name":"S","subjects":["s"],"storage":"memory","num_replicas":3}"#;
        let made = ask(&cluster.urls()[0], "STREAM.CREATE.S", stream);
        let first = cluster.wait_for_stream_leader("S");
        assert_eq!(made["cluster"]["leader"], name(first), "{made}");
        cluster.kill(first);
        let second = cluster.wait_for_stream_leader("S");
        assert_ne!(first, second);
        cluster.wait_for_leader();
        let found = ask(&cluster.urls()[second], "STREAM.INFO.S", "");
        assert_eq!(found["cluster"]["leader"], name(second), "{found}");
    }

    #[test]
    fn reserved_ports_are_free_distinct_and_not_where_others_look() {
        let ports = reserve::<3>();
        assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[0] != ports[2]);
        for port in ports {
            assert!(port.ip().is_loopback() && port.ip() != Ipv4Addr::LOCALHOST);
            TcpListener::bind(port).unwrap();
        }
    }

    #[test]
    fn a_cluster_that_lost_its_leader_elects_another_and_takes_the_lost_one_back() {
        let mut cluster = NatsCluster::start();
        let first = cluster.wait_for_leader();
        let urls = cluster.urls();
        cluster.kill(first);
        let second = cluster.wait_for_leader();
        assert_ne!(first, second);
        cluster.kill(second);
        // One of three is no majority, whatever it remembers.
        assert_eq!(cluster.meta_leader(), None);
        cluster.restart(first);
        cluster.restart(second);
        cluster.wait_whole();
        assert_eq!(cluster.urls(), urls);
        assert_eq!(cluster.stream_leader("NONE"), None);
    }
}
