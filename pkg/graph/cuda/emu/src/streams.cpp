// Streams, which run eagerly or as late as CUDA may, events, and graphs.
#include "driver.h"

#include <chrono>
#include <cstdint>
#include <cstring>
#include <set>

namespace driver {

struct Event {
  Stream *stream = nullptr;
  unsigned long long seq = 0; // position in the stream of the last record
  bool recorded = false, asked = false;
  std::shared_ptr<Graph> graph; // recorded while capturing
  double time = 0;
};
struct GraphHandle { std::shared_ptr<Graph> graph; };
struct GraphExec { std::shared_ptr<Graph> graph; };

std::set<Stream *> streams;
Stream *legacy() {
  static Stream *s = new Stream;
  streams.insert(s);
  return s;
}
Stream *of(void *handle) { return (uintptr_t)handle <= 2 ? legacy() : (Stream *)handle; }
bool known(Stream *s) { return streams.count(s) > 0; }
std::set<Event *> events;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
bool lazy() { return *knob("MEAP_FAKE_LAZY", "0") != '0'; }

CUresult drain(Stream *s, unsigned long long to) {
  while (!s->queue.empty() && s->queue.front().seq <= to) {
    Op op = std::move(s->queue.front());
    s->queue.pop_front();
    if (op.after && known(op.after)) drain(op.after, op.after_seq);
    if (!sticky && op.run) {
      CUresult r = op.run();
      if (r) sticky = r;
    }
    s->done = op.seq;
  }
  return sticky;
}
CUresult drain(Stream *s) { return drain(s, s->next); }
CUresult drain_all() {
  for (auto *s : streams) drain(s);
  return sticky;
}

CUresult drain_blocking() {
  for (auto *s : streams)
    if (s->blocking) drain(s);
  return sticky;
}

bool capturing_strictly() {
  for (auto *s : streams)
    if (s->capture && s->mode != 2) return true;
  return false;
}
void invalidate() {
  for (auto *s : streams)
    if (s->capture) s->capture->invalid = true;
}

CUresult add(Stream *s, Op op) {
  if (!known(s)) return refuse(INVALID_HANDLE, "%s on a stream that does not exist", op.what.c_str());
  if (s->capture) {
    if (s->capture->invalid) return CAPTURE_INVALIDATED;
    s->loose = true;
    s->capture->ops.push_back(std::move(op));
    return SUCCESS;
  }
  if (s == legacy())
    for (auto *o : streams)
      if (o->capture && o->blocking) {
        invalidate();
        return refuse(CAPTURE_IMPLICIT, "%s on the legacy stream while a blocking stream is captured", op.what.c_str());
      }
  if (s == legacy()) drain_blocking();
  op.seq = s->next++;
  s->queue.push_back(std::move(op));
  return lazy() ? SUCCESS : drain(s);
}

} // namespace driver

// Streams and events.

API CUresult cuStreamCreateWithPriority(Stream **s, unsigned flags, int) {
  ENTER("cuStreamCreate");
  NEED_CONTEXT("cuStreamCreate");
  *s = new Stream;
  (*s)->blocking = !(flags & 1);
  streams.insert(*s);
  return SUCCESS;
}
API CUresult cuStreamCreate(Stream **s, unsigned flags) { return cuStreamCreateWithPriority(s, flags, 0); }
API CUresult cuStreamDestroy_v2(void *s) {
  LOCK;
  if ((uintptr_t)s <= 2 || !known((Stream *)s)) return refuse(INVALID_HANDLE, "cuStreamDestroy of a stream that does not exist");
  drain((Stream *)s);
  streams.erase((Stream *)s);
  delete (Stream *)s;
  return sticky;
}
API CUresult cuStreamSynchronize(void *handle) {
  ENTER("cuStreamSynchronize");
  Stream *s = of(handle);
  if (!known(s)) return refuse(INVALID_HANDLE, "cuStreamSynchronize of a stream that does not exist");
  if (s->capture || capturing_strictly()) {
    invalidate();
    return refuse(CAPTURE_UNSUPPORTED, "cuStreamSynchronize while a stream is captured");
  }
  return s == legacy() ? drain_blocking() : drain(s);
}
API CUresult cuStreamQuery(void *handle) {
  ENTER("cuStreamQuery");
  Stream *s = of(handle);
  if (s->queue.empty()) return SUCCESS;
  drain(s);
  return sticky ? sticky : NOT_READY;
}
API CUresult cuEventCreate(Event **e, unsigned) {
  ENTER("cuEventCreate");
  NEED_CONTEXT("cuEventCreate");
  *e = new Event;
  events.insert(*e);
  return SUCCESS;
}
API CUresult cuEventDestroy_v2(Event *e) {
  LOCK;
  if (!events.erase(e)) return refuse(INVALID_HANDLE, "cuEventDestroy of an event that does not exist");
  delete e;
  return SUCCESS;
}
API CUresult cuEventRecord(Event *e, void *handle) {
  ENTER("cuEventRecord");
  if (!events.count(e)) return refuse(INVALID_HANDLE, "cuEventRecord of an event that does not exist");
  Stream *s = of(handle);
  e->stream = s;
  e->asked = false;
  if (s->capture) {
    e->graph = s->capture;
    return SUCCESS;
  }
  e->graph = nullptr;
  e->recorded = true;
  e->seq = s->next;
  return add(s, {"cuEventRecord", [e] {
                   if (events.count(e)) e->time = now();
                   return SUCCESS;
                 }});
}
API CUresult cuStreamWaitEvent(void *handle, Event *e, unsigned) {
  ENTER("cuStreamWaitEvent");
  if (!events.count(e)) return refuse(INVALID_HANDLE, "cuStreamWaitEvent of an event that does not exist");
  Stream *s = of(handle);
  if (e->graph) {
    if (s->capture && s->capture != e->graph) return refuse(902, "two captures are merged by an event");
    if (!s->capture) s->capture = e->graph, s->mode = e->stream->mode, s->origin = false, s->loose = true;
    if (e->stream != s) e->stream->loose = false;
    return SUCCESS;
  }
  if (s->capture && e->recorded) {
    invalidate();
    return refuse(907, "a captured stream waits for an event from outside of the capture");
  }
  if (!e->recorded) return SUCCESS;
  Op op{"cuStreamWaitEvent", nullptr};
  op.after = e->stream, op.after_seq = e->seq;
  return add(s, op);
}
API CUresult cuEventSynchronize(Event *e) {
  ENTER("cuEventSynchronize");
  if (!events.count(e)) return refuse(INVALID_HANDLE, "cuEventSynchronize of an event that does not exist");
  if (e->graph) return refuse(CAPTURE_UNSUPPORTED, "cuEventSynchronize of an event that was captured");
  return e->recorded && known(e->stream) ? drain(e->stream, e->seq) : SUCCESS;
}
// With lazy streams the first question after a record is answered "not ready", and the second does the work.
API CUresult cuEventQuery(Event *e) {
  ENTER("cuEventQuery");
  if (!events.count(e)) return refuse(INVALID_HANDLE, "cuEventQuery of an event that does not exist");
  if (!e->recorded || !known(e->stream) || e->stream->done >= e->seq) return SUCCESS;
  if (!e->asked) {
    e->asked = true;
    return NOT_READY;
  }
  return drain(e->stream, e->seq);
}
API CUresult cuEventElapsedTime(float *ms, Event *a, Event *b) {
  ENTER("cuEventElapsedTime");
  for (Event *e : {a, b}) {
    if (!events.count(e) || !e->recorded) return refuse(INVALID_HANDLE, "cuEventElapsedTime of an event that was not recorded");
    if (known(e->stream) && e->stream->done < e->seq) return NOT_READY;
  }
  *ms = (float)((b->time - a->time) * 1e3);
  return SUCCESS;
}
API CUresult cuEventElapsedTime_v2(float *ms, Event *a, Event *b) { return cuEventElapsedTime(ms, a, b); }

// Graphs.

API CUresult cuStreamBeginCapture_v2(void *handle, int mode) {
  ENTER("cuStreamBeginCapture");
  Stream *s = of(handle);
  if (s == legacy()) return refuse(CAPTURE_UNSUPPORTED, "the legacy stream cannot be captured");
  if (s->capture) return refuse(INVALID_VALUE, "the stream is captured already");
  s->capture = std::make_shared<Graph>();
  s->origin = true, s->mode = mode;
  return SUCCESS;
}
API CUresult cuStreamEndCapture(void *handle, GraphHandle **out) {
  LOCK;
  *out = nullptr;
  Stream *s = of(handle);
  if (!s->capture || !s->origin) return refuse(CAPTURE_UNMATCHED, "cuStreamEndCapture on a stream whose capture did not begin there");
  auto graph = s->capture;
  bool loose = false;
  for (auto *o : streams)
    if (o->capture == graph) {
      if (o != s) loose = loose || o->loose;
      o->capture = nullptr;
      o->origin = o->loose = false;
    }
  if (graph->invalid) return CAPTURE_INVALIDATED;
  if (loose) return refuse(CAPTURE_UNJOINED, "a stream that joined the capture was not waited for");
  *out = new GraphHandle{graph};
  record("cuStreamEndCapture nodes=%zu", graph->ops.size());
  return SUCCESS;
}
API CUresult cuStreamIsCapturing(void *handle, int *status) {
  LOCK;
  Stream *s = of(handle);
  *status = !s->capture ? 0 : s->capture->invalid ? 2 : 1;
  return SUCCESS;
}
API CUresult cuThreadExchangeStreamCaptureMode(int *) { return SUCCESS; }
static CUresult instantiate(GraphExec **e, GraphHandle *g) {
  *e = new GraphExec{g->graph};
  record("cuGraphInstantiate nodes=%zu", g->graph->ops.size());
  return SUCCESS;
}
API CUresult cuGraphInstantiateWithFlags(GraphExec **e, GraphHandle *g, unsigned long long) {
  ENTER("cuGraphInstantiate");
  return instantiate(e, g);
}
API CUresult cuGraphInstantiate_v2(GraphExec **e, GraphHandle *g, void **, char *, size_t) {
  ENTER("cuGraphInstantiate");
  return instantiate(e, g);
}
API CUresult cuGraphInstantiate(GraphExec **e, GraphHandle *g, void **, char *, size_t) {
  ENTER("cuGraphInstantiate");
  return instantiate(e, g);
}
API CUresult cuGraphGetNodes(GraphHandle *g, void **nodes, size_t *n) {
  LOCK;
  if (!nodes) *n = g->graph->ops.size();
  for (size_t i = 0; nodes && i < *n; i++) nodes[i] = i < g->graph->ops.size() ? &g->graph->ops[i] : nullptr;
  return SUCCESS;
}
API CUresult cuGraphUpload(GraphExec *, void *) { return SUCCESS; }
API CUresult cuGraphLaunch(GraphExec *e, void *stream) {
  ENTER("cuGraphLaunch");
  record("cuGraphLaunch nodes=%zu", e->graph->ops.size());
  auto graph = e->graph;
  return add(of(stream), {"cuGraphLaunch", [graph]() -> CUresult {
                            for (auto &op : graph->ops)
                              if (op.run)
                                if (CUresult r = op.run()) return r;
                            return SUCCESS;
                          }});
}
API CUresult cuGraphExecUpdate_v2(GraphExec *e, GraphHandle *g, int *result) {
  ENTER("cuGraphExecUpdate");
  if (result) memset(result, 0, 24);
  if (e->graph->ops.size() != g->graph->ops.size()) return refuse(910, "the graphs differ in their nodes");
  e->graph = g->graph;
  return SUCCESS;
}
API CUresult cuGraphExecDestroy(GraphExec *e) {
  LOCK;
  drain_all();
  delete e;
  return SUCCESS;
}
API CUresult cuGraphDestroy(GraphHandle *g) {
  LOCK;
  delete g;
  return SUCCESS;
}
API CUresult cuProfilerStart() { return SUCCESS; }
API CUresult cuProfilerStop() { return SUCCESS; }
