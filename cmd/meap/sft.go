package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"meap/internal/config"
	"meap/internal/setup"
	"meap/pkg/dataset"
	"meap/pkg/dataset/dialogue"
)

func newSFT(o *options) *cobra.Command {
	var run runFlags
	var show int
	c := &cobra.Command{
		Use:   "sft",
		Short: "Fine-tune a model on dialogues, with masked answers",
		Long: `Fine-tune a model on dialogues (supervised fine-tuning with MEAP).

The files of data.sources hold one JSON object per line (.jsonl, also .gz and .zst) or one JSON array:
  {"instruction": "...", "input": "...", "output": "..."}
  {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}
  {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}

Every answer, with the token that ends it, is learnt from the dialogue before it. A dialogue with an answer
of more than sft.min_target tokens is trained a second time with sft.ratio of that answer's tokens masked,
and those tokens are learnt. What cannot be used is left out and listed; with sft.strict it is an error.

The run's output folder is like pretrain's, and goes on in the same way when it was interrupted.`,
		Example: `  meap sft --config configs/sft/alpaca.yaml --model runs/quickstart
  meap sft --config configs/sft/alpaca.yaml --model ~/models/TinyLlama --set sft.ratio=0 --output runs/plain
  meap sft --config configs/sft/chats.yaml --model runs/quickstart --show 2
  meap sft --model runs/quickstart --set data.sources=chats.jsonl --set sft.template=plain --output runs/chats`,
		RunE: func(c *cobra.Command, _ []string) error {
			if run.file == "" && len(run.set) == 0 {
				return usagef("sft needs --config FILE; configs/sft/alpaca.yaml is one to start from")
			}
			if show < 0 {
				return usagef("--show counts rows")
			}
			if show > 0 {
				return showRows(c, o, &run, show)
			}
			if run.output == "" {
				run.output = filepath.Join("runs", "sft-"+run.name())
			}
			return finetune(c, o, &run)
		},
	}
	run.bind(c, "runs/sft-NAME of the configuration file")
	c.Flags().StringP("model", "m", "", "folder of the model that is fine-tuned, or of a run that trained it; sets model.path")
	run.flag(c, "model", "model.path")
	c.Flags().IntVar(&show, "show", 0, "show this many rows of the first step, decoded, with what is masked and what is learnt, and train nothing")
	return endingWell(c)
}

func finetune(c *cobra.Command, o *options, flags *runFlags) error {
	cfg, err := loadSFT(c, flags)
	if err != nil {
		return err
	}
	run, err := flags.open(c, cfg)
	if err != nil {
		return err
	}
	defer run.close()
	data, err := run.Dialogues(c.Context())
	if err != nil {
		return err
	}
	work, err := run.Finetuning(run.model, data, run.device)
	if err != nil {
		return err
	}
	listSkipped(c.ErrOrStderr(), data.Report)
	announce(c.ErrOrStderr(), cfg, run.model, run.device, data.Source.Epochs(cfg.Trainer.LastStep()), describeDialogues(cfg, run.Base, data)...)
	return flags.train(c, o, work)
}

// loadSFT reads a configuration that must name the model.
func loadSFT(c *cobra.Command, flags *runFlags) (*config.Config, error) {
	cfg, err := flags.load(c)
	if err == nil && cfg.Model.Path == "" {
		err = usagef(`model.path = "": name the folder of the model that is fine-tuned, with --model DIR`)
	}
	return cfg, err
}

// showRows writes the first rows that a run would train on.
func showRows(c *cobra.Command, o *options, flags *runFlags, n int) error {
	cfg, err := loadSFT(c, flags)
	if err != nil {
		return err
	}
	opened, err := open(c, cfg)
	if err != nil {
		return err
	}
	data, err := opened.Dialogues(c.Context())
	if err != nil {
		return err
	}
	listSkipped(c.ErrOrStderr(), data.Report)
	var b dataset.Batch
	if err := data.Source.Collate(1, 0, min(n, cfg.Trainer.RowsPerStep()), &b); err != nil {
		return err
	}
	for _, row := range dialogue.Inspect(&b, opened.Tokenizer) {
		if o.json {
			err = printJSON(c.OutOrStdout(), row)
		} else {
			_, err = fmt.Fprintln(c.OutOrStdout(), row)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// describeDialogues is what announce says about a fine-tuning run's data.
func describeDialogues(cfg, base *config.Config, d *setup.Dialogues) []string {
	text := fmt.Sprintf("%d dialogues for training (%s tokens, of which %s in answers), %d held out", len(d.Train),
		count(float64(dialogue.Tokens(d.Train))), count(float64(dialogue.Labels(d.Train))), len(d.Set.Validation))
	if d.Report.Cut > 0 {
		text += fmt.Sprintf(", %d without the last turns, for which trainer.seq has no room", d.Report.Cut)
	}
	masks := fmt.Sprintf("%v of the tokens of answers with more than %d", cfg.SFT.Ratio, cfg.SFT.MinTarget)
	masked := 0
	for _, e := range d.Train {
		if d.Options.Policy.Masks(e.Answers) {
			masked++
		}
	}
	return []string{
		"from\t" + base.Model.Path,
		"data\t" + text,
		fmt.Sprintf("template\t%s", d.Options.Template.Name),
		fmt.Sprintf("masking\t%s, in a second copy of %d dialogues (%s)", masks, masked, cfg.SFT.Copies),
		fmt.Sprintf("rows\t%.0f %% filled in the first step", 100*d.Source.Filled(1)),
	}
}

// maxListed is how many dialogues that were left out are listed one by one.
const maxListed = 10

// listSkipped says which dialogues are not trained on.
func listSkipped(w io.Writer, r dialogue.Report) {
	if len(r.Skipped) == 0 {
		return
	}
	fmt.Fprintf(w, "left out %d of %d dialogues: %v\n", len(r.Skipped), r.Dialogues, r)
	for i, s := range r.Skipped {
		if i == maxListed {
			fmt.Fprintf(w, "  and %d more; sft.strict makes the first one an error\n", len(r.Skipped)-maxListed)
			break
		}
		fmt.Fprintf(w, "  %v\n", s)
	}
}
