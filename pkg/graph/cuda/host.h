// What this package calls of CUDA beside gorgonia.org/cu, and libraries that are opened at run time.
#ifndef MEAP_HOST_H
#define MEAP_HOST_H
#include <stddef.h>
#include <stdint.h>

// meap_open_driver opens the driver library at path and calls its cuInit, once a process. It returns a CUresult; where the library
// is missing, -1 with the reason in meap_driver_error.
int meap_open_driver(const char *path);
const char *meap_driver_error(void);

const char *meap_error_name(int r);
const char *meap_error_text(int r);

// All of these make ctx current on the calling thread first, so it does not matter which thread that is.
int meap_current(void *ctx);
int meap_alloc(void *ctx, uint64_t *p, size_t n);
int meap_free(void *ctx, uint64_t p);
int meap_mem_info(void *ctx, size_t *free, size_t *total);
int meap_pinned_alloc(void *ctx, void **p, size_t n);
int meap_pinned_free(void *ctx, void *p);
int meap_zero(void *ctx, uint64_t p, size_t n, void *stream);
int meap_to_device(void *ctx, uint64_t dst, const void *src, size_t n, void *stream);
int meap_to_host(void *ctx, void *dst, uint64_t src, size_t n, void *stream);
int meap_on_device(void *ctx, uint64_t dst, uint64_t src, size_t n, void *stream);
int meap_record(void *ctx, void *event, void *stream);
int meap_wait(void *ctx, void *stream, void *event);
int meap_event_sync(void *ctx, void *event);
int meap_stream_sync(void *ctx, void *stream);
int meap_shared(void *ctx, void *function, int bytes);
int meap_launch(void *ctx, void *function, unsigned gx, unsigned gy, unsigned gz, unsigned block, unsigned shared, void *stream, void *args);
int meap_capture_begin(void *ctx, void *stream);
int meap_capture_end(void *ctx, void *stream, void **exec);
int meap_graph_launch(void *ctx, void *exec, void *stream);
int meap_graph_free(void *ctx, void *exec);

// Libraries. meap_dlopen returns null and the reason in err.
void *meap_dlopen(const char *name, char *err, size_t n);

// cuBLASLt. meap_lt_bind returns the name of a symbol that is missing, or null.
typedef struct meap_lt meap_lt;
const char *meap_lt_bind(void *library, meap_lt **lt);
size_t meap_lt_version(meap_lt *lt);
int meap_lt_create(meap_lt *lt, void *ctx);
void meap_lt_destroy(meap_lt *lt);
// A product in column-major order: d [m, n] = op(a) op(b) + beta d, summed in fp32. Types are cudaDataType_t.
typedef struct {
	int transa, transb, type, dtype;
	uint64_t m, n, k;
	int64_t lda, ldb, ldd;
	unsigned aligna, alignb, alignd;
	size_t workspace;
} meap_product;
typedef struct meap_lt_plan meap_lt_plan;
// meap_lt_plan_new returns a cublasStatus_t; with status 0 and no plan, there is no algorithm.
int meap_lt_plan_new(meap_lt *lt, void *ctx, const meap_product *p, meap_lt_plan **plan);
void meap_lt_plan_free(meap_lt *lt, meap_lt_plan *plan);
int meap_lt_run(meap_lt *lt, void *ctx, meap_lt_plan *plan, uint64_t a, uint64_t b, float beta, uint64_t d, uint64_t workspace, size_t bytes, void *stream);

// NVRTC.
typedef struct meap_nvrtc meap_nvrtc;
const char *meap_nvrtc_bind(void *library, meap_nvrtc **rtc);
int meap_nvrtc_version(meap_nvrtc *rtc, int *major, int *minor);
// meap_nvrtc_compile returns an nvrtcResult; image and log are the caller's to free.
int meap_nvrtc_compile(meap_nvrtc *rtc, const char *source, const char *name, int headers, char **header_text, char **header_names,
                       int options, char **option, char **image, size_t *image_len, char **log);
#endif
