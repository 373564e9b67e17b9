using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Headroom.Core;

namespace Headroom.Cuda;

/// <summary>
/// Which of the matrix library's algorithms was fastest for a product on this machine, remembered on disk: timing decides once, and every later run takes the
/// same algorithm and so gives the same bits. Where nothing can be remembered nothing is timed, and the library's first choice stands.
/// </summary>
internal sealed class ProductChoices
{
    private const int Attempts = 50;
    private readonly string _path;
    private readonly Dictionary<string, int> _ranks = [];

    /// <summary>Reads what is known for a device and library; <paramref name="identity"/> names both with their versions.</summary>
    public ProductChoices(string identity, string? folder = null)
    {
        folder ??= Path.Combine(HeadroomCache.Folder, "products");
        _path = Path.Combine(folder, Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(identity)))[..16] + ".txt");
        try
        {
            Directory.CreateDirectory(folder);
            using var file = Open(); // throws where nothing can be kept
            Read(file);
            Writable = true;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { }
    }

    // Alone with the file. Another process may have it for a moment: a run that did without would take other algorithms than the next.
    private FileStream Open()
    {
        for (int attempt = 0; ; attempt++)
        {
            try
            {
                return new FileStream(_path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException) when (attempt < Attempts)
            {
                Thread.Sleep(10);
            }
        }
    }

    // Leaves the file at its end.
    private void Read(FileStream file)
    {
        using var reader = new StreamReader(file, leaveOpen: true);
        while (reader.ReadLine() is { } line)
            if (line.Split('\t') is [var key, var rank] && int.TryParse(rank, NumberStyles.None, CultureInfo.InvariantCulture, out int r)) _ranks[key] = r;
    }

    /// <summary>Choices can be kept for the next run.</summary>
    public bool Writable { get; }

    /// <summary>The place of a product's algorithm in the library's list, or null when it was never timed.</summary>
    public int? this[string product] => _ranks.TryGetValue(product, out int rank) ? rank : null;

    /// <summary>Remembers a choice. Another process may have been first: its choice is kept then, and returned.</summary>
    public int Add(string product, int rank)
    {
        try
        {
            using var file = Open();
            Read(file);
            if (_ranks.TryGetValue(product, out int known)) return known;
            file.Seek(0, SeekOrigin.End);
            file.Write(Encoding.UTF8.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{product}\t{rank}\n")));
            return _ranks[product] = rank;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return _ranks[product] = 0; // not remembered: as the next run will do
        }
    }

    /// <summary>The choice among times in milliseconds, of which the first is the library's own: another must be faster by more than the noise of a measurement.</summary>
    public static int Best(ReadOnlySpan<double> times)
    {
        int best = 0;
        for (int i = 1; i < times.Length; i++)
            if (times[i] < times[best]) best = i;
        return times[best] < 0.985 * times[0] ? best : 0;
    }
}
