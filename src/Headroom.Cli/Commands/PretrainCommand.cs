using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Headroom.Core;
using Headroom.Training;
using Headroom.Training.Pretraining;

namespace Headroom.Cli.Commands;

/// <summary>headroom pretrain: a small base from nothing.</summary>
internal static class PretrainCommand
{
    public static Command Create()
    {
        var d = new PretrainOptions();
        var output = new Argument<string>("out")
        {
            Description =
                "Folder of the new model. Example: headroom pretrain my-tiny --tokenizer sentencepiece --layers 2 "
                    + "--notes 500 --epochs 1",
        };
        var tokenizer = new Option<string>("--tokenizer")
        {
            Description = "sentencepiece or byte-level",
            DefaultValueFactory = _ => d.Tokenizer,
        };
        tokenizer.AcceptOnlyFromAmong("sentencepiece", "byte-level");
        var vocab = new Option<int>("--vocab")
        {
            Description = "vocab_size asked for",
            DefaultValueFactory = _ => d.VocabSize,
        };
        var hidden = new Option<int>("--hidden")
        {
            Description = "hidden_size",
            DefaultValueFactory = _ => d.HiddenSize,
        };
        var inter = new Option<int>("--intermediate")
        {
            Description = "intermediate_size",
            DefaultValueFactory = _ => d.IntermediateSize,
        };
        var layers = new Option<int>("--layers")
        {
            Description = "num_hidden_layers",
            DefaultValueFactory = _ => d.NumHiddenLayers,
        };
        var heads = new Option<int>("--heads")
        {
            Description = "num_attention_heads",
            DefaultValueFactory = _ => d.NumAttentionHeads,
        };
        var notes = new Option<int>("--notes")
        {
            Description = "Notes of the embedded corpus",
            DefaultValueFactory = _ => d.Notes,
        };
        var epochs = new Option<double>("--epochs")
        {
            Description = "Passes over them",
            DefaultValueFactory = _ => d.Epochs,
        };
        var lr = new Option<double>("--learning-rate")
        {
            Description = "Peak learning rate",
            DefaultValueFactory = _ => d.LearningRate,
        };
        var seed = new Option<int>("--seed") { Description = "Seed", DefaultValueFactory = _ => d.Seed };
        var device = new Option<string>("--device")
        {
            Description = "auto, cpu or cuda",
            DefaultValueFactory = _ => "cpu",
        };
        device.AcceptOnlyFromAmong("auto", "cpu", "cuda");
        var overwrite = new Option<bool>("--overwrite")
        {
            Description = "Replace a base that is there; it stays whole until the new one is.",
        };
        var json = new Option<bool>("--json")
        {
            Description = "Print the result as JSON; progress goes to standard error.",
        };
        var command = new Command("pretrain", "Make a small base model from the embedded corpus.")
        {
            output, tokenizer, vocab, hidden, inter, layers, heads, notes, epochs, lr, seed, overwrite, device, json,
        };
        command.SetAction(p =>
        {
            var o = new PretrainOptions
            {
                Tokenizer = p.GetValue(tokenizer)!,
                VocabSize = p.GetValue(vocab),
                HiddenSize = p.GetValue(hidden),
                IntermediateSize = p.GetValue(inter),
                NumHiddenLayers = p.GetValue(layers),
                NumAttentionHeads = p.GetValue(heads),
                Notes = p.GetValue(notes),
                Epochs = p.GetValue(epochs),
                LearningRate = p.GetValue(lr),
                Seed = p.GetValue(seed),
            };
            if (
                o.VocabSize < 512
                || o.HiddenSize < 1
                || o.IntermediateSize < 1
                || o.NumHiddenLayers < 1
                || o.NumAttentionHeads < 1
                || o.Notes < 1
                || !(o.Epochs > 0)
            )
                throw new HeadroomException(
                    "--vocab must be at least 512 and every other size positive.", "Give larger sizes.");
            if (
                o.VocabSize > 1 << 17
                || o.HiddenSize > 1 << 14
                || o.IntermediateSize > 1 << 16
                || o.NumHiddenLayers > 256
                || o.Notes > 10_000_000
                || o.Epochs > 1000
            )
                throw new HeadroomException(
                    "A size is beyond what pretrain is for.",
                    "At most: --vocab 131072, --hidden 16384, --intermediate 65536, --layers 256, --notes 10000000, "
                        + "--epochs 1000."
                );
            string folder = p.GetValue(output)!;
            using var session = new Session(p.GetValue(json));
            double? loss = Pretrainer.Run(
                o, folder, session.Open(p.GetValue(device)!), session.Say, session.Progress, session.Token,
                p.GetValue(overwrite));
            if (loss == null)
            {
                session.Say("stopped; nothing was written");
                return 1;
            }
            session.Say(string.Create(CultureInfo.InvariantCulture, $"{folder}: final loss {loss:F4}"));
            if (p.GetValue(json)) Console.WriteLine(JsonSerializer.Serialize(new { folder, loss }));
            return 0;
        });
        return command;
    }
}
