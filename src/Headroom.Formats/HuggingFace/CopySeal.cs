using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using Headroom.Core;
using Headroom.Formats.Gguf;
using Headroom.Formats.Safetensors;

namespace Headroom.Formats.HuggingFace;

/// <summary>
/// Hashes in the metadata of a quantized copy's model.safetensors, by which every byte of the copy is known to be what
/// was written. header_sha256 is that of config.json's hash and the header (its length included, its own digits as
/// zeros), looked at before anything is taken from it. data_sha256 is that of the hashes of the data's
/// pieces of 8 MiB, which many threads make beside the loading.
/// </summary>
internal static class CopySeal
{
    private const string HeaderKey = "header_sha256",
        DataKey = "data_sha256",
        Weights = "model.safetensors",
        Config = "config.json";
    private const int Digits = 64, Piece = 8 << 20;

    /// <summary>Metadata to write the copy with: room for the hashes.</summary>
    public static IReadOnlyDictionary<string, string> Blank { get; } =
        new Dictionary<string, string> { [HeaderKey] = new('0', Digits), [DataKey] = new('0', Digits) };

    /// <summary>Fills the hashes in, once the copy's files are written.</summary>
    /// <param name="folder">Folder of config.json and of a model.safetensors that was written with
    /// <see cref="Blank"/>.</param>
    /// <exception cref="IOException">It cannot be read or written.</exception>
    public static void Set(string folder)
    {
        string path = Path.Combine(folder, Weights);
        byte[] header = Header(path);
        Put(header, DataKey, DataHash(path, header.Length, () => false)!);
        Put(header, HeaderKey, HeaderHash(folder, header));
        using var file = new FileStream(path, FileMode.Open, FileAccess.Write);
        file.Write(header);
        file.Flush(flushToDisk: true);
    }

    /// <summary>Whether config.json and the header are what was written. Reads only these.</summary>
    public static bool HeaderIsWhole(string folder)
    {
        byte[] header = Header(Path.Combine(folder, Weights));
        return Get(header, HeaderKey) is { } due && due == HeaderHash(folder, header);
    }

    /// <summary>
    /// Whether the data are what was written: reads all, on threads of low priority. Ends early, with true, when
    /// <paramref name="stop"/> says so.
    /// </summary>
    public static bool DataIsWhole(string folder, Func<bool> stop)
    {
        try
        {
            string path = Path.Combine(folder, Weights);
            byte[] header = Header(path);
            return DataHash(path, header.Length, stop) is not { } hash || hash == Get(header, DataKey);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    private static string HeaderHash(string folder, byte[] header)
    {
        byte[] blank = [.. header];
        Put(blank, HeaderKey, new string('0', Digits));
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        hash.AppendData(SHA256.HashData(File.ReadAllBytes(Path.Combine(folder, Config))));
        hash.AppendData(blank);
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    // null when it was stopped.
    private static string? DataHash(string path, int from, Func<bool> stop)
    {
        using var file = File.OpenHandle(path);
        long length = RandomAccess.GetLength(file) - from;
        var pieces = new byte[checked((int)((length + Piece - 1) / Piece))][];
        using var buffers = new ThreadLocal<byte[]>(() => new byte[Piece]);
        LowPriority.Run(pieces.Length, i =>
        {
            LowPriority.Step();
            if (stop()) return;
            byte[] buffer = buffers.Value!;
            long at = (long)i * Piece;
            int n = FileRead.Exactly(file, from + at, buffer.AsSpan(0, (int)Math.Min(Piece, length - at)));
            pieces[i] = SHA256.HashData(buffer.AsSpan(0, n));
        });
        return pieces.Any(p => p == null)
            ? null
            : Convert.ToHexStringLower(SHA256.HashData([.. pieces.SelectMany(p => p)]));
    }

    // The 8 bytes of the header's length and the header.
    private static byte[] Header(string path)
    {
        using var file = File.OpenHandle(path);
        long length = RandomAccess.GetLength(file);
        var size = new byte[8];
        long header = FileRead.Exactly(file, 0, size) == 8 ? BinaryPrimitives.ReadInt64LittleEndian(size) : -1;
        if (header < 0 || header > Math.Min(length - 8, SafetensorsFile.MaxHeader))
            throw new IOException($"{path} has no header");
        var bytes = new byte[8 + header];
        if (FileRead.Exactly(file, 0, bytes) != bytes.Length) throw new IOException($"{path} ends inside its header");
        return bytes;
    }

    private static int PlaceOf(ReadOnlySpan<byte> header, string key)
    {
        byte[] start = Encoding.UTF8.GetBytes($"\"{key}\":\"");
        int at = header.IndexOf(start);
        return at < 0 || at + start.Length + Digits > header.Length ? -1 : at + start.Length;
    }

    private static string? Get(byte[] header, string key) =>
        PlaceOf(header, key) is var at && at < 0 ? null : Encoding.ASCII.GetString(header, at, Digits);

    private static void Put(byte[] header, string key, string digits)
    {
        if (PlaceOf(header, key) is var at && at >= 0) Encoding.ASCII.GetBytes(digits, header.AsSpan(at, Digits));
    }
}
