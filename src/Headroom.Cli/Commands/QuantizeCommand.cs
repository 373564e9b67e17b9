using System.CommandLine;
using System.Text.Json;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Inference;
using Headroom.Inference.Export;

namespace Headroom.Cli.Commands;

/// <summary>headroom quantize: a bitsandbytes 4-bit checkpoint of a model.</summary>
internal static class QuantizeCommand
{
    public static Command Create()
    {
        var model = new Argument<string>("model")
        {
            Description =
                "A Hugging Face folder, a .gguf file, or a hub name. Example: headroom quantize models/llama-tiny "
                    + "llama-tiny-4bit",
        };
        var output = new Argument<string>("out") { Description = "Folder of the new checkpoint." };
        var flat = new Option<bool>("--flat")
        {
            Description = "Statistics in float32 in place of double-quantized ones.",
        };
        var device = CommonOptions.With("--device", "auto", "auto, cpu or cuda");
        var overwrite = new Option<bool>("--overwrite")
        {
            Description = "Replace a checkpoint that is there; it stays whole until the new one is.",
        };
        var json = CommonOptions.Json();
        var command = new Command(
            "quantize", "Write a model as a bitsandbytes NF4 checkpoint that transformers and Headroom load.")
        {
            model, output, flat, overwrite, device, json,
        };
        command.SetAction(p =>
            Run(
                p.GetValue(model)!, p.GetValue(output)!, p.GetValue(flat), p.GetValue(overwrite), p.GetValue(device)!,
                p.GetValue(json))
        );
        return command;
    }

    private static int Run(string path, string folder, bool flat, bool overwrite, string deviceName, bool json)
    {
        if (deviceName is not ("auto" or "cpu" or "cuda"))
            throw new HeadroomException($"--device {deviceName} is unknown.", "Use auto, cpu or cuda.");
        using var target = OutputTarget.OfFolder(
            folder, overwrite, "Give another folder.", QuantizedCheckpoint.IsOwnFile);
        using var session = new Session(json);
        path = session.Model(path);
        target.KeepOff("the model", path); // four bits do not give it back
        using var model = OpenModel.Open(new ModelSource(path)
        {
            Quantization = new() { Bnb4bitUseDoubleQuant = flat ? false : null },
            OwnWeights = true,
        });
        foreach (string line in model.Source.Notices) session.Say(line);
        var device = session.Open(deviceName);
        var settings = model.Settings(device);
        using var engine = model.Load(device, settings, new BatchLimits(), (d, t) =>
            session.Progress("quantizing", d, t, "")
        );
        QuantizedCheckpoint.WriteInto(target.Temporary, engine, model.Source, Directory.Exists(path) ? path : null);
        target.Commit();
        long bytes = new FileInfo(Path.Combine(folder, "model.safetensors")).Length;
        session.Say($"{folder}: {Units.Bytes(bytes)}");
        if (json)
            Console.WriteLine(
                JsonSerializer.Serialize(
                    new
                    {
                        folder,
                        bytes,
                        double_quant = settings.LinearStorage == WeightStorage.NF4Double,
                    }
                )
            );
        return 0;
    }
}
