//go:build gpu && linux

#define _GNU_SOURCE
#include <cuda.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "host.h"

const char *meap_error_name(int r) {
	const char *s = 0;
	cuGetErrorName((CUresult)r, &s);
	return s ? s : "";
}

const char *meap_error_text(int r) {
	const char *s = 0;
	cuGetErrorString((CUresult)r, &s);
	return s ? s : "";
}

int meap_current(uintptr_t ctx) { return cuCtxSetCurrent((CUcontext)ctx); }

#define IN(call)                                     \
	CUresult r = cuCtxSetCurrent((CUcontext)ctx); \
	return r ? r : (call)

int meap_alloc(uintptr_t ctx, uint64_t *p, size_t n) {
	CUdeviceptr d = 0;
	CUresult r = cuCtxSetCurrent((CUcontext)ctx);
	if (!r) r = cuMemAlloc(&d, n);
	*p = d;
	return r;
}
int meap_free(uintptr_t ctx, uint64_t p) { IN(cuMemFree((CUdeviceptr)p)); }
int meap_mem_info(uintptr_t ctx, size_t *free, size_t *total) { IN(cuMemGetInfo(free, total)); }
int meap_pinned_alloc(uintptr_t ctx, void **p, size_t n) { IN(cuMemHostAlloc(p, n, 0)); }
int meap_pinned_free(uintptr_t ctx, void *p) { IN(cuMemFreeHost(p)); }
int meap_zero(uintptr_t ctx, uint64_t p, size_t n, uintptr_t stream) { IN(cuMemsetD8Async((CUdeviceptr)p, 0, n, (CUstream)stream)); }
int meap_to_device(uintptr_t ctx, uint64_t dst, const void *src, size_t n, uintptr_t stream) {
	IN(cuMemcpyHtoDAsync((CUdeviceptr)dst, src, n, (CUstream)stream));
}
int meap_to_host(uintptr_t ctx, void *dst, uint64_t src, size_t n, uintptr_t stream) {
	IN(cuMemcpyDtoHAsync(dst, (CUdeviceptr)src, n, (CUstream)stream));
}
int meap_on_device(uintptr_t ctx, uint64_t dst, uint64_t src, size_t n, uintptr_t stream) {
	IN(cuMemcpyDtoDAsync((CUdeviceptr)dst, (CUdeviceptr)src, n, (CUstream)stream));
}
int meap_record(uintptr_t ctx, uintptr_t event, uintptr_t stream) { IN(cuEventRecord((CUevent)event, (CUstream)stream)); }
int meap_wait(uintptr_t ctx, uintptr_t stream, uintptr_t event) { IN(cuStreamWaitEvent((CUstream)stream, (CUevent)event, 0)); }
int meap_event_sync(uintptr_t ctx, uintptr_t event) { IN(cuEventSynchronize((CUevent)event)); }
int meap_stream_sync(uintptr_t ctx, uintptr_t stream) { IN(cuStreamSynchronize((CUstream)stream)); }
int meap_shared(uintptr_t ctx, uintptr_t function, int bytes) {
	IN(cuFuncSetAttribute((CUfunction)function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes));
}
int meap_launch(uintptr_t ctx, uintptr_t function, unsigned gx, unsigned gy, unsigned gz, unsigned block, unsigned shared, uintptr_t stream, void *args) {
	void *params[1] = {args};
	IN(cuLaunchKernel((CUfunction)function, gx, gy, gz, block, 1, 1, shared, (CUstream)stream, params, 0));
}

// Relaxed: the capture may end on another thread than it began, and allocations of other threads don't break it.
int meap_capture_begin(uintptr_t ctx, uintptr_t stream) { IN(cuStreamBeginCapture((CUstream)stream, CU_STREAM_CAPTURE_MODE_RELAXED)); }
int meap_capture_end(uintptr_t ctx, uintptr_t stream, uintptr_t *exec) {
	CUgraph g = 0;
	CUresult r = cuCtxSetCurrent((CUcontext)ctx);
	if (!r) r = cuStreamEndCapture((CUstream)stream, &g);
	if (!r && !g) r = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	if (!r) r = cuGraphInstantiateWithFlags((CUgraphExec *)exec, g, 0);
	if (g) cuGraphDestroy(g);
	return r;
}
int meap_graph_launch(uintptr_t ctx, uintptr_t exec, uintptr_t stream) { IN(cuGraphLaunch((CUgraphExec)exec, (CUstream)stream)); }
int meap_graph_free(uintptr_t ctx, uintptr_t exec) { IN(cuGraphExecDestroy((CUgraphExec)exec)); }

void *meap_dlopen(const char *name, char *err, size_t n) {
	void *h = dlopen(name, RTLD_NOW | RTLD_LOCAL);
	if (!h) {
		const char *why = dlerror();
		snprintf(err, n, "%s", why ? why : "cannot be opened");
	}
	return h;
}

// bind fills the pointers from the library; the first name that it does not have is returned.
typedef struct {
	const char *name;
	void **p;
} symbol;
static const char *bind(void *library, const symbol *s) {
	for (; s->name; s++)
		if (!(*s->p = dlsym(library, s->name))) return s->name;
	return 0;
}

// ---- cuBLASLt, whose functions and constants are declared here so that its headers are not needed.

struct meap_lt {
	void *handle;
	size_t (*version)(void);
	int (*create)(void **);
	int (*destroy)(void *);
	int (*desc_create)(void **, int compute, int scale);
	int (*desc_set)(void *, int, const void *, size_t);
	int (*desc_destroy)(void *);
	int (*layout_create)(void **, int type, uint64_t rows, uint64_t cols, int64_t ld);
	int (*layout_destroy)(void *);
	int (*pref_create)(void **);
	int (*pref_set)(void *, int, const void *, size_t);
	int (*pref_destroy)(void *);
	int (*heuristic)(void *, void *, void *, void *, void *, void *, void *, int, void *, int *);
	int (*matmul)(void *, void *, const void *, const void *, void *, const void *, void *, const void *, const void *, void *, void *, void *,
	              const void *, void *, size_t, void *);
};

enum {
	R_32F = 0,
	COMPUTE_32F = 68, // products of fp32 operands are not rounded to TF32
	DESC_TRANSA = 3,
	DESC_TRANSB = 4,
	PREF_WORKSPACE = 1,
	PREF_REDUCTION = 3,
	PREF_ALIGN_A = 5,
	PREF_ALIGN_B = 6,
	PREF_ALIGN_C = 7,
	PREF_ALIGN_D = 8,
	// Sums along k that are cut into pieces are joined in fp32 in the workspace, in a fixed order; never in place.
	REDUCTION_COMPUTE_TYPE = 2,
};

// A cublasLtMatmulHeuristicResult_t: the algorithm, what it needs, and whether it can be used.
typedef struct {
	uint64_t algorithm[8];
	size_t workspace;
	int state;
	float waves;
	int reserved[4];
} heuristic_result;

struct meap_lt_plan {
	void *desc, *a, *b, *d;
	heuristic_result best;
};

const char *meap_lt_bind(void *library, meap_lt **out) {
	meap_lt *lt = calloc(1, sizeof *lt);
	*out = lt;
	const symbol all[] = {
		{"cublasLtGetVersion", (void **)&lt->version},
		{"cublasLtCreate", (void **)&lt->create},
		{"cublasLtDestroy", (void **)&lt->destroy},
		{"cublasLtMatmulDescCreate", (void **)&lt->desc_create},
		{"cublasLtMatmulDescSetAttribute", (void **)&lt->desc_set},
		{"cublasLtMatmulDescDestroy", (void **)&lt->desc_destroy},
		{"cublasLtMatrixLayoutCreate", (void **)&lt->layout_create},
		{"cublasLtMatrixLayoutDestroy", (void **)&lt->layout_destroy},
		{"cublasLtMatmulPreferenceCreate", (void **)&lt->pref_create},
		{"cublasLtMatmulPreferenceSetAttribute", (void **)&lt->pref_set},
		{"cublasLtMatmulPreferenceDestroy", (void **)&lt->pref_destroy},
		{"cublasLtMatmulAlgoGetHeuristic", (void **)&lt->heuristic},
		{"cublasLtMatmul", (void **)&lt->matmul},
		{0, 0},
	};
	return bind(library, all);
}

size_t meap_lt_version(meap_lt *lt) { return lt->version(); }

int meap_lt_create(meap_lt *lt, uintptr_t ctx) {
	cuCtxSetCurrent((CUcontext)ctx);
	return lt->create(&lt->handle);
}

void meap_lt_destroy(meap_lt *lt) {
	if (lt->handle) lt->destroy(lt->handle);
	free(lt);
}

int meap_lt_plan_new(meap_lt *lt, uintptr_t ctx, const meap_product *p, meap_lt_plan **out) {
	cuCtxSetCurrent((CUcontext)ctx);
	meap_lt_plan *plan = calloc(1, sizeof *plan);
	void *pref = 0;
	int n = 0, reduction = REDUCTION_COMPUTE_TYPE, st;
	*out = 0;
#define TRY(call) \
	if ((st = (call))) goto done
	TRY(lt->desc_create(&plan->desc, COMPUTE_32F, R_32F));
	TRY(lt->desc_set(plan->desc, DESC_TRANSA, &p->transa, sizeof p->transa));
	TRY(lt->desc_set(plan->desc, DESC_TRANSB, &p->transb, sizeof p->transb));
	TRY(lt->layout_create(&plan->a, p->type, p->transa ? p->k : p->m, p->transa ? p->m : p->k, p->lda));
	TRY(lt->layout_create(&plan->b, p->type, p->transb ? p->n : p->k, p->transb ? p->k : p->n, p->ldb));
	TRY(lt->layout_create(&plan->d, p->dtype, p->m, p->n, p->ldd));
	TRY(lt->pref_create(&pref));
	TRY(lt->pref_set(pref, PREF_WORKSPACE, &p->workspace, sizeof p->workspace));
	TRY(lt->pref_set(pref, PREF_REDUCTION, &reduction, sizeof reduction));
	TRY(lt->pref_set(pref, PREF_ALIGN_A, &p->aligna, sizeof p->aligna));
	TRY(lt->pref_set(pref, PREF_ALIGN_B, &p->alignb, sizeof p->alignb));
	TRY(lt->pref_set(pref, PREF_ALIGN_C, &p->alignd, sizeof p->alignd));
	TRY(lt->pref_set(pref, PREF_ALIGN_D, &p->alignd, sizeof p->alignd));
	st = lt->heuristic(lt->handle, plan->desc, plan->a, plan->b, plan->d, plan->d, pref, 1, &plan->best, &n);
	if (st == 15) st = 0, n = 0; // CUBLAS_STATUS_NOT_SUPPORTED
done:
	if (pref) lt->pref_destroy(pref);
	if (st || n < 1 || plan->best.state)
		meap_lt_plan_free(lt, plan);
	else
		*out = plan;
	return st;
}

void meap_lt_plan_free(meap_lt *lt, meap_lt_plan *plan) {
	if (plan->desc) lt->desc_destroy(plan->desc);
	if (plan->a) lt->layout_destroy(plan->a);
	if (plan->b) lt->layout_destroy(plan->b);
	if (plan->d) lt->layout_destroy(plan->d);
	free(plan);
}

int meap_lt_run(meap_lt *lt, uintptr_t ctx, meap_lt_plan *plan, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t workspace, size_t bytes, uintptr_t stream) {
	const float one = 1, beta = c ? 1 : 0;
	cuCtxSetCurrent((CUcontext)ctx);
	return lt->matmul(lt->handle, plan->desc, &one, (void *)a, plan->a, (void *)b, plan->b, &beta, (void *)(c ? c : d), plan->d, (void *)d, plan->d,
	                  plan->best.algorithm, (void *)workspace, bytes, (void *)stream);
}

// ---- NVRTC

struct meap_nvrtc {
	int (*version)(int *, int *);
	int (*create)(void **, const char *, const char *, int, const char *const *, const char *const *);
	int (*compile)(void *, int, const char *const *);
	int (*destroy)(void **);
	int (*cubin_size)(void *, size_t *);
	int (*cubin)(void *, char *);
	int (*log_size)(void *, size_t *);
	int (*log)(void *, char *);
};

const char *meap_nvrtc_bind(void *library, meap_nvrtc **out) {
	meap_nvrtc *r = calloc(1, sizeof *r);
	*out = r;
	const symbol all[] = {
		{"nvrtcVersion", (void **)&r->version},           {"nvrtcCreateProgram", (void **)&r->create},
		{"nvrtcCompileProgram", (void **)&r->compile},    {"nvrtcDestroyProgram", (void **)&r->destroy},
		{"nvrtcGetCUBINSize", (void **)&r->cubin_size},   {"nvrtcGetCUBIN", (void **)&r->cubin},
		{"nvrtcGetProgramLogSize", (void **)&r->log_size}, {"nvrtcGetProgramLog", (void **)&r->log},
		{0, 0},
	};
	return bind(library, all);
}

int meap_nvrtc_version(meap_nvrtc *r, int *major, int *minor) { return r->version(major, minor); }

int meap_nvrtc_compile(meap_nvrtc *r, const char *source, const char *name, int headers, char **header_text, char **header_names,
                       int options, char **option, char **image, size_t *image_len, char **log) {
	void *program = 0;
	size_t n = 0;
	*image = *log = 0;
	*image_len = 0;
	int st = r->create(&program, source, name, headers, (const char *const *)header_text, (const char *const *)header_names);
	if (st) return st;
	st = r->compile(program, options, (const char *const *)option);
	if (!r->log_size(program, &n) && n > 1) {
		*log = calloc(1, n + 1);
		r->log(program, *log);
	}
	if (!st && !(st = r->cubin_size(program, image_len))) {
		*image = malloc(*image_len);
		st = r->cubin(program, *image);
	}
	r->destroy(&program);
	return st;
}
