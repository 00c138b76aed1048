package transformer

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"

	"meap/pkg/graph"
)

// Weight declares one trained tensor.
type Weight struct {
	Name  string // as Hugging Face's LlamaForCausalLM names it
	Shape []int  // a matrix is [out, in]
	Mean  float64
	Std   float64 // of the normal distribution around Mean that it starts from; 0: every element is Mean
}

// Elems returns the number of elements.
func (w Weight) Elems() int { return graph.Desc{Shape: w.Shape}.Elems() }

// Tensor is a named tensor in host memory, row-major.
type Tensor struct {
	Name  string
	Shape []int
	Data  []float32
}

// Weights is a model in host memory: its tensors in the order of Config.Weights.
type Weights struct {
	Config  Config
	Tensors []Tensor
}

// modelNodes are the weights of a model, as nodes of a graph.
type modelNodes struct {
	embed  *graph.Node
	layers []layerNodes
	norm   *graph.Node
	head   *graph.Node // embed itself where they are tied
}

// layerNodes are the weights of one block. The biases are nil in a model without.
type layerNodes struct {
	attnNorm            *graph.Node
	q, k, v, o          *graph.Node
	qBias, kBias, vBias *graph.Node
	ffnNorm             *graph.Node
	gate, up, down      *graph.Node
}

// declare is the one place that says which weights a model has: each one's name, shape, initialisation and use. It hands every
// weight to node, in canonical order, and puts what comes back where the model uses it.
//
// The initialisation is the reference implementation's: N(0, 2/(5 dim)) for the embedding and every matrix but the two of a block
// that write to the residual stream, which have N(0, 1/(dim layers²)); norms begin at 1, biases at 0.
func (c Config) declare(node func(Weight) *graph.Node) modelNodes {
	var (
		d, q, kv = c.Dim, c.Heads * c.HeadDim, c.KVHeads * c.HeadDim
		ones     = Weight{Mean: 1}
		zeros    = Weight{}
		normal   = Weight{Std: math.Sqrt(2 / (5 * float64(d)))}
		residual = Weight{Std: 1 / (math.Sqrt(float64(d)) * float64(c.Layers))}
	)
	prefix := "model."
	w := func(name string, start Weight, shape ...int) *graph.Node {
		start.Name, start.Shape = prefix+name, shape
		return node(start)
	}
	var m modelNodes
	m.embed = w("embed_tokens.weight", normal, c.Vocab, d)
	for i := range c.Layers {
		prefix = fmt.Sprintf("model.layers.%d.", i)
		var l layerNodes
		l.attnNorm = w("input_layernorm.weight", ones, d)
		l.q = w("self_attn.q_proj.weight", normal, q, d)
		l.k = w("self_attn.k_proj.weight", normal, kv, d)
		l.v = w("self_attn.v_proj.weight", normal, kv, d)
		if c.QKVBias {
			l.qBias = w("self_attn.q_proj.bias", zeros, q)
			l.kBias = w("self_attn.k_proj.bias", zeros, kv)
			l.vBias = w("self_attn.v_proj.bias", zeros, kv)
		}
		l.o = w("self_attn.o_proj.weight", residual, d, q)
		l.ffnNorm = w("post_attention_layernorm.weight", ones, d)
		l.gate = w("mlp.gate_proj.weight", normal, c.FFN, d)
		l.up = w("mlp.up_proj.weight", normal, c.FFN, d)
		l.down = w("mlp.down_proj.weight", residual, d, c.FFN)
		m.layers = append(m.layers, l)
	}
	prefix = "model."
	m.norm = w("norm.weight", ones, d)
	m.head = m.embed
	if !c.TieEmbeddings {
		prefix = ""
		m.head = w("lm_head.weight", normal, c.Vocab, d)
	}
	return m
}

// Weights lists the model's weights in canonical order, from the embedding to the head.
func (c Config) Weights() []Weight {
	var all []Weight
	c.declare(func(w Weight) *graph.Node {
		all = append(all, w)
		return nil
	})
	return all
}

// Init makes the weights of an untrained model. Each value depends on the seed, the tensor's name and the element's index only, not
// on the other tensors or the number of threads.
func Init(c Config, seed uint64) *Weights {
	w := &Weights{Config: c}
	var wg sync.WaitGroup
	running := make(chan struct{}, runtime.GOMAXPROCS(0))
	for _, d := range c.Weights() {
		t := Tensor{Name: d.Name, Shape: d.Shape, Data: make([]float32, d.Elems())}
		w.Tensors = append(w.Tensors, t)
		key := tensorKey(seed, d.Name)
		for from := 0; from < len(t.Data); from += initPiece {
			piece := t.Data[from:min(from+initPiece, len(t.Data))]
			running <- struct{}{}
			wg.Go(func() {
				for i := range piece {
					piece[i] = d.start(key, from+i)
				}
				<-running
			})
		}
	}
	wg.Wait()
	return w
}

// initPiece is how many elements a goroutine initialises at a time.
const initPiece = 1 << 16

// start returns the initial value of element i, under the tensor's key.
func (w Weight) start(key uint64, i int) float32 {
	if w.Std == 0 {
		return float32(w.Mean)
	}
	return float32(w.Mean + w.Std*normal(key, uint64(i)))
}

// tensorKey spreads seed and name over the keys of the generator.
func tensorKey(seed uint64, name string) uint64 {
	key := mix(seed)
	for _, b := range []byte(name) {
		key = mix(key ^ uint64(b))
	}
	return key
}

// mix is the output function of SplitMix64 (Steele, Lea, Flood 2014) after one step of its counter.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// uniform returns the i-th number of a key's sequence, in [0, 1) with 53 bits.
func uniform(key, i uint64) float64 { return float64(mix(key+i*0x9e3779b97f4a7c15)>>11) / (1 << 53) }

// normal returns the i-th number of a key's sequence, of the standard normal distribution (Box and Muller 1958).
func normal(key, i uint64) float64 {
	radius := math.Sqrt(-2 * math.Log(1-uniform(key, 2*i)))
	return radius * math.Cos(2*math.Pi*uniform(key, 2*i+1))
}

// check returns an error unless the tensors are those that the Config declares, in its order.
func (w *Weights) check() error {
	want := w.Config.Weights()
	if len(w.Tensors) != len(want) {
		return fmt.Errorf("%d tensors, where the model has %d", len(w.Tensors), len(want))
	}
	for i, t := range w.Tensors {
		switch d := want[i]; {
		case t.Name != d.Name:
			return fmt.Errorf("tensor %d is %s, where the model has %s", i, t.Name, d.Name)
		case !slices.Equal(t.Shape, d.Shape) || len(t.Data) != d.Elems():
			return fmt.Errorf("tensor %s has shape %v and %d elements, where the model has %v", t.Name, t.Shape, len(t.Data), d.Shape)
		}
	}
	return nil
}
