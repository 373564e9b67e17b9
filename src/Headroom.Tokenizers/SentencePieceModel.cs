using System.Buffers.Binary;
using System.Globalization;
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
        var spec = new Spec();
        var r = new Reader(data);
        while (r.Next(out int field, out int wire))
            switch (field, wire)
            {
                case (1, 2): pieces.Add(Piece(new Reader(r.Bytes()), pieces.Count)); break;
                case (2, 2): spec.ReadTrainer(new Reader(r.Bytes())); break;
                case (3, 2): spec.ReadNormalizer(new Reader(r.Bytes())); break;
                default: r.Skip(wire); break;
            }
        if (pieces.Count == 0) throw new FormatException("it holds no pieces");
        spec.Check();
        return Build(pieces, spec.Prefix, spec.OneSpace, spec.Unk, spec.Bos, spec.Eos);
    }

    private static (string Text, float Score, PieceKind Kind) Piece(Reader r, int number)
    {
        string text = "";
        float score = 0;
        var kind = PieceKind.Normal;
        while (r.Next(out int field, out int wire))
            switch (field, wire)
            {
                case (1, 2): text = Encoding.UTF8.GetString(r.Bytes()); break;
                case (2, 5): score = r.Float(); break;
                case (3, 0): kind = (PieceKind)r.Int(); break;
                default: r.Skip(wire); break;
            }
        if (!Enum.IsDefined(kind)) throw new FormatException($"piece {number} is of kind {(int)kind}");
        return (text, score, kind);
    }

    // What the trainer's and the normalizer's part say; where they are silent, what the format says.
    private sealed class Spec
    {
        private int _modelType = 1;
        private bool _suffixMark, _escape = true;

        public int Unk { get; private set; }
        public int Bos { get; private set; } = 1;
        public int Eos { get; private set; } = 2;
        public bool Prefix { get; private set; } = true;
        public bool OneSpace { get; private set; } = true;

        public void ReadTrainer(Reader r)
        {
            while (r.Next(out int field, out int wire))
            {
                if (wire != 0) { r.Skip(wire); continue; }
                int v = r.Int();
                switch (field)
                {
                    case 3: _modelType = v; break;
                    case 24: _suffixMark = v != 0; break;
                    case 40: Unk = v; break;
                    case 41: Bos = v; break;
                    case 42: Eos = v; break;
                }
            }
        }

        public void ReadNormalizer(Reader r)
        {
            while (r.Next(out int field, out int wire))
            {
                if ((field, wire) == (2, 2) && r.Bytes().Length > 0)
                    throw new HeadroomException(
                        "The SentencePiece model normalizes text by a table of its own, which is not supported.",
                        UseJson);
                if ((field, wire) == (2, 2)) continue;
                if (wire != 0) { r.Skip(wire); continue; }
                bool v = r.Int() != 0;
                switch (field)
                {
                    case 3: Prefix = v; break;
                    case 4: OneSpace = v; break;
                    case 5: _escape = v; break;
                }
            }
        }

        public void Check()
        {
            string type = _modelType switch
            {
                1 => "unigram",
                3 => "word",
                4 => "char",
                var other => other.ToString(CultureInfo.InvariantCulture),
            };
            if (_modelType != 2)
                throw new HeadroomException(
                    $"The SentencePiece model is of type {type}; only BPE can be read.", UseJson);
            if (_suffixMark || !_escape)
                throw new HeadroomException(
                    "The SentencePiece model marks blanks in a way that is not supported.", UseJson);
        }
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
