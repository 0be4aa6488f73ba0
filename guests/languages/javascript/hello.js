// Serves HTTP: says hello and which path was asked for.
addEventListener("fetch", (event) => {
  const { pathname, search } = new URL(event.request.url);
  event.respondWith(
    new Response(`hello from ${pathname}${search}\n`, { headers: { "content-type": "text/plain" } }),
  );
});
