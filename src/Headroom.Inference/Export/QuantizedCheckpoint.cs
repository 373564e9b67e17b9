using System.Runtime.InteropServices;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.BitsAndBytes;
using Headroom.Formats.HuggingFace;
using Headroom.Formats.Safetensors;

namespace Headroom.Inference.Export;

/// <summary>
/// Writes a loaded NF4 model as a bitsandbytes checkpoint folder: what is on the device, bit for bit; nothing is
/// quantized again.
/// </summary>
internal static class QuantizedCheckpoint
{
    private static readonly string[] Beside =
    [
        "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
        "special_tokens_map.json", "chat_template.jinja", "added_tokens.json", "vocab.json", "merges.txt"];

    /// <summary>
    /// Writes model.safetensors and config.json, and copies tokenizer files from <paramref name="sourceFolder"/> when
    /// there is one. The folder appears whole or not at all. Embeddings, norms and biases keep the type that the source
    /// has them in.
    /// </summary>
    /// <param name="engine">A model whose projections are NF4 or NF4Double.</param>
    /// <param name="source">The checkpoint it was loaded from.</param>
    /// <param name="folder">Folder to make; must not exist.</param>
    /// <param name="sourceFolder">Folder with the tokenizer, or null.</param>
    /// <param name="metadata">Further strings for the file's metadata.</param>
    public static void Write(
        Engine engine, IWeightSource source, string folder, string? sourceFolder = null,
        IReadOnlyDictionary<string, string>? metadata = null)
    {
        folder = Path.TrimEndingDirectorySeparator(Path.GetFullPath(folder));
        if (Path.Exists(folder))
            throw new HeadroomException($"{folder} exists already.", "Give another folder, or remove it.");
        using var target = OutputTarget.OfFolder(folder, false, "Give another folder, or remove it.", _ => false);
        WriteInto(target.Temporary, engine, source, sourceFolder, metadata);
        target.Commit();
    }

    /// <summary>Makes a folder and writes the same files into it, one after the other.</summary>
    public static void WriteInto(
        string folder, Engine engine, IWeightSource source, string? sourceFolder,
        IReadOnlyDictionary<string, string>? metadata = null)
    {
        try
        {
            FileLayer.Current.CreateFolder(folder);
            foreach (string name in sourceFolder == null ? [] : Beside)
                if (File.Exists(Path.Combine(sourceFolder!, name)))
                    AtomicFile.Copy(Path.Combine(sourceFolder!, name), Path.Combine(folder, name));
            bool nested = engine.Settings.LinearStorage == WeightStorage.NF4Double;
            var dtype = source.SourceDType(source.Config.AnyProjectionName());
            string config = BnbWriter.Config(source.ConfigJson ?? HfConfig.Write(source.Config), nested, dtype);
            AtomicFile.WriteText(Path.Combine(folder, "config.json"), config);
            SafetensorsWriter.Write(Path.Combine(folder, "model.safetensors"), Tensors(engine, source), metadata);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new HeadroomException(
                $"{folder} cannot be written: {e.Message}", "Give another folder or free some space.", 1, e);
        }
    }

    /// <summary>
    /// Whether a file in a folder (its path there, with /) is one that <see cref="Write"/> may have written.
    /// </summary>
    public static bool IsOwnFile(string name) => Beside.Contains(name) || name is "config.json" or "model.safetensors";

    private static IEnumerable<SafetensorPart> Tensors(Engine engine, IWeightSource source)
    {
        var model = engine.Model;
        void Read(Tensor t, Span<byte> to) => engine.Device.Download(t, to);
        SafetensorPart Vector(string name, Tensor t)
        {
            byte[] bytes = Narrow(engine.Read(t), source.SourceDType(name));
            return new SafetensorPart(name, NameOf(source.SourceDType(name)), [t.Count], bytes.Length, f =>
                f.Write(bytes)
            );
        }
        SafetensorPart Table(string name, LinearWeight w)
        {
            if (w.Data.DType is not (DType.F32 or DType.BF16 or DType.F16))
                throw new HeadroomException(
                    $"{name} is held as {w.Storage}, which a bitsandbytes checkpoint cannot hold.",
                    "Use a base in 16 or 32 bits.");
            return BnbWriter.Stored(name, NameOf(w.Data.DType), [w.Out, w.In], w.Data, Read);
        }
        yield return Table(model.Config.TableName(), model.EmbeddingTable);
        if (!model.Config.TieWordEmbeddings) yield return Table(model.Config.HeadName(), model.Head);
        foreach (var (name, weight) in model.Norms) yield return Vector(name, weight);
        foreach (var p in model.Projections)
        {
            string name = p.Path + ".weight";
            if (p.Weight.Storage is WeightStorage.NF4 or WeightStorage.NF4Double)
                foreach (var part in BnbWriter.Weight(name, p.Weight, source.SourceDType(name), Read))
                    yield return part;
            else yield return Table(name, p.Weight);
            if (!p.Weight.Bias.IsNone) yield return Vector(p.Path + ".bias", p.Weight.Bias);
        }
    }

    private static string NameOf(DType t) => t switch { DType.BF16 => "BF16", DType.F16 => "F16", _ => "F32" };

    /// <summary>float32 values that came from 16 bits, back to those bits.</summary>
    private static byte[] Narrow(float[] values, DType dtype) => dtype switch
    {
        DType.BF16 => MemoryMarshal
            .AsBytes(Array.ConvertAll(values, v => (ushort)(BitConverter.SingleToUInt32Bits(v) >> 16)).AsSpan())
            .ToArray(),
        DType.F16 => MemoryMarshal.AsBytes(Array.ConvertAll(values, v => (Half)v).AsSpan()).ToArray(),
        _ => MemoryMarshal.AsBytes(values.AsSpan()).ToArray(),
    };
}
