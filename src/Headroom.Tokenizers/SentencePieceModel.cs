using System.Buffers.Binary;
using System.Text;
using Headroom.Core;

namespace Headroom.Tokenizers;

/// <summary>Kinds of SentencePiece pieces (sentencepiece_model.proto and GGUF token types alike).</summary>
internal enum PieceKind { Normal = 1, Unknown = 2, Control = 3, UserDefined = 4, Unused = 5, Byte = 6 }

/// <summary>A SentencePiece BPE vocabulary, from tokenizer.model or GGUF.</summary>
internal static class SentencePieceModel
{
    private const string UseJson = "Use the model's tokenizer.json or GGUF file.";

    /// <summary>Reads the protobuf of a tokenizer.model.</summary>
    public static TokenizerParts Read(ReadOnlySpan<byte> data)
    {
        var pieces = new List<(string Text, float Score, PieceKind Kind)>();
        int modelType = 1, unk = 0, bos = 1, eos = 2;
        bool prefix = true, oneSpace = true, suffixMark = false, escape = true;
        var r = new Reader(data);
        while (r.Next(out int field, out int wire))
        {
            switch (field, wire)
            {
                case (1, 2):
                    string text = "";
                    float score = 0;
                    var kind = PieceKind.Normal;
                    var p = new Reader(r.Bytes());
                    while (p.Next(out int f, out int w))
                    {
                        if ((f, w) == (1, 2)) text = Encoding.UTF8.GetString(p.Bytes());
                        else if ((f, w) == (2, 5)) score = p.Float();
                        else if ((f, w) == (3, 0)) kind = (PieceKind)p.Int();
                        else p.Skip(w);
                    }
                    if (!Enum.IsDefined(kind))
                        throw new FormatException($"piece {pieces.Count} is of kind {(int)kind}");
                    pieces.Add((text, score, kind));
                    break;
                case (2, 2):
                    var t = new Reader(r.Bytes());
                    while (t.Next(out int f, out int w))
                    {
                        if (w != 0) { t.Skip(w); continue; }
                        int v = t.Int();
                        switch (f)
                        {
                            case 3: modelType = v; break;
                            case 24: suffixMark = v != 0; break;
                            case 40: unk = v; break;
                            case 41: bos = v; break;
                            case 42: eos = v; break;
                        }
                    }
                    break;
                case (3, 2):
                    var n = new Reader(r.Bytes());
                    while (n.Next(out int f, out int w))
                    {
                        if ((f, w) == (2, 2))
                        {
                            if (n.Bytes().Length > 0)
                                throw new HeadroomException(
                                    "The SentencePiece model normalizes text by a table of its own, which is not "
                                        + "supported.",
                                    UseJson);
                        }
                        else if (w == 0)
                        {
                            bool v = n.Int() != 0;
                            if (f == 3) prefix = v;
                            else if (f == 4) oneSpace = v;
                            else if (f == 5) escape = v;
                        }
                        else n.Skip(w);
                    }
                    break;
                default: r.Skip(wire); break;
            }
        }
        if (pieces.Count == 0) throw new FormatException("it holds no pieces");
        if (modelType != 2)
            throw new HeadroomException(
                $"The SentencePiece model is of type "
                    + $"{modelType switch { 1 => "unigram", 3 => "word", 4 => "char", _ => modelType.ToString(System.Globalization.CultureInfo.InvariantCulture) }}; only BPE can be read.",
                UseJson);
        if (suffixMark || !escape)
            throw new HeadroomException(
                "The SentencePiece model marks blanks in a way that is not supported.", UseJson);
        return Build(pieces, prefix, oneSpace, unk, bos, eos);
    }

    /// <summary>The tokenizer of a scored vocabulary.</summary>
    public static TokenizerParts Build(
        IReadOnlyList<(string Text, float Score, PieceKind Kind)> pieces, bool prefix, bool oneSpace, int unk, int bos,
        int eos)
    {
        var vocab = new Dictionary<string, int>(StringComparer.Ordinal);
        var ids = new Dictionary<string, int>(StringComparer.Ordinal);
        var added = new List<AddedToken>();
        var bytes = Vocabulary.NoBytes();
        var spelled = new string[pieces.Count];
        for (int i = 0; i < pieces.Count; i++)
        {
            var (text, _, kind) = pieces[i];
            spelled[i] = text;
            ids.TryAdd(text, i);
            if (kind == PieceKind.Normal) vocab.TryAdd(text, i);
            else if (kind == PieceKind.Byte && Decoders.ByteOf(text) is { } b) bytes[b] = i;
            else if (kind is PieceKind.Control or PieceKind.Unknown) added.Add(new AddedToken(i, text));
            else if (kind == PieceKind.UserDefined)
                added.Add(new AddedToken(i, text.Replace(WordStartStep.Mark, ' '), Special: false));
        }
        var merges = Vocabulary.MergesByScore(vocab, id => pieces[id].Score);
        var steps = new List<PreStep>();
        if (Vocabulary.WordStartFits(vocab, merges)) steps.Add(new WordStartStep());
        var normal = new List<Func<string, string>>();
        if (oneSpace) normal.Add(Normalizers.OneSpace);
        if (prefix) normal.Add(Normalizers.Prepend("\u2581"));
        normal.Add(Normalizers.Replace(" ", "\u2581"));
        var decoders = new List<Func<List<string>, List<string>>>
        {
            Decoders.Replace(Normalizers.Replace("\u2581", " ")), Decoders.ByteFallback, Decoders.Fuse,
        };
        if (prefix) decoders.Add(Decoders.Strip(new Rune(' '), 1, 0));
        int? Known(int id) => (uint)id < (uint)pieces.Count ? id : null;
        return new TokenizerParts
        {
            Model = new BpeModel(
                vocab, merges, bytes, byteLevel: false, ignoreMerges: false, Known(unk) ?? -1, fuseUnk: true),
            ByteLevel = false,
            Pieces = spelled,
            Ids = ids,
            Added = added,
            Normalizer = Normalizers.Chain(normal),
            Steps = steps,
            Decoders = decoders,
            Bos = Known(bos),
            Eos = Known(eos),
            Prefix = Known(bos) is { } first ? [first] : [],
            Scored = pieces,
        };
    }

    private ref struct Reader(ReadOnlySpan<byte> data)
    {
        private ReadOnlySpan<byte> _rest = data;

        public bool Next(out int field, out int wire)
        {
            (field, wire) = (0, 0);
            if (_rest.IsEmpty) return false;
            ulong tag = Varint();
            (field, wire) = ((int)Math.Min(tag >> 3, int.MaxValue), (int)(tag & 7));
            if (field == 0) throw new FormatException("it has a field 0");
            return true;
        }

        private ulong Varint()
        {
            ulong v = 0;
            for (int shift = 0; shift < 64; shift += 7)
            {
                if (_rest.IsEmpty) throw new FormatException("it ends early");
                byte b = _rest[0];
                _rest = _rest[1..];
                v |= (ulong)(b & 127) << shift;
                if (b < 128) return v;
            }
            throw new FormatException("it holds a number that is too long");
        }

        public int Int() => (int)Varint();

        private ReadOnlySpan<byte> Take(ulong n)
        {
            if (n > (ulong)_rest.Length) throw new FormatException("it ends early");
            var part = _rest[..(int)n];
            _rest = _rest[(int)n..];
            return part;
        }

        public ReadOnlySpan<byte> Bytes() => Take(Varint());

        public float Float() => BinaryPrimitives.ReadSingleLittleEndian(Take(4));

        public void Skip(int wire)
        {
            switch (wire)
            {
                case 0: Varint(); break;
                case 1: Take(8); break;
                case 2: Bytes(); break;
                case 5: Take(4); break;
                default: throw new FormatException($"it holds wire type {wire}");
            }
        }
    }
}
